"""Purge and copy through the lake that people see."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from runlake import ids
from runlake.errors import AlreadyExistsError, NotFoundError
from runlake.lake import Lake, open_lake
from runlake.upkeep.compact import Compactor
from runlake.upkeep.copies.copying import copy_lake
from runlake.upkeep.purge import purge, purge_experiment
from runlake.upkeep.vacuum import vacuum

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def logged(lake: Lake, name: str, *, experiment: str = "digits", step: int = 3) -> str:
    """Log a run with some of everything, and return its id."""
    with lake.start_run(name, experiment=experiment, tags={"team": name}) as run:
        run.log_params({"lr": 0.1, "name": name})
        for number in range(step):
            run.log({"loss": 1.0 / (number + 1)}, step=number)
        run.log_text(f"words of {name}", "notes.txt")
    return run.run_id


def again(lake: Lake) -> Lake:
    """Return the lake as another process sees it."""
    lake.close()
    return open_lake(lake.url, refresh=0)


def answers(lake: Lake) -> dict[str, Any]:
    """Return what a lake says of its runs and experiments, the place of their files aside."""
    runs = lake.search_runs(run_view_type="ALL").drop("artifact_uri").sort("run_id")
    return {
        "runs": runs.to_dicts(),
        "points": lake.sql("FROM metrics ORDER BY ALL").to_dicts(),
        "events": lake.sql("FROM events WHERE run_id <> '' ORDER BY ALL").to_dicts(),
        "experiments": lake.sql(
            "SELECT experiment_id, name, lifecycle_stage, tags FROM experiments ORDER BY ALL"
        ).to_dicts(),
    }


def test_a_purged_run_is_in_no_answer_and_the_others_are_as_before(folder: Path) -> None:
    lake = open_lake(folder / "lake", refresh=0)
    kept, gone = logged(lake, "kept"), logged(lake, "gone")
    lake = again(lake)
    before = [row for row in answers(lake)["runs"] if row["run_id"] == kept]
    done = purge(lake._storage.fs, lake=lake._storage.require_lake(), run_ids=[gone])
    assert done.left == ()
    after = answers(again(lake))
    assert after["runs"] == before
    assert {row["run_id"] for row in after["events"]} == {kept}
    with pytest.raises(NotFoundError):
        lake.get_run(gone)
    found = b"".join(path.read_bytes() for path in folder.rglob("*.parquet"))
    assert gone.encode() not in found


def test_the_name_of_a_purged_experiment_is_free_and_its_next_owner_another(folder: Path) -> None:
    lake = open_lake(folder / "lake", refresh=0)
    logged(lake, "one")
    old = ids.derived_experiment_id("digits")
    lake.set_experiment_tags(old, {"team": "vision"})
    lake = again(lake)
    with pytest.raises(AlreadyExistsError):
        lake.create_experiment("digits")
    purge_experiment(lake._storage.fs, lake=lake._storage.require_lake(), experiment_id=old)
    lake = again(lake)
    assert lake.search_experiments() == []
    assert lake.get_experiment_by_name("digits") is None
    run_id = logged(lake, "two")
    lake = again(lake)
    (found,) = lake.search_experiments()
    assert found.name == "digits"
    assert found.experiment_id != old
    assert found.tags == {}
    assert lake.get_run(run_id).info.experiment_id == found.experiment_id


def test_who_purges_an_experiment_begins_its_next_run_in_a_new_one(folder: Path) -> None:
    lake = open_lake(folder / "lake", refresh=0)
    gone = logged(lake, "one")
    done = lake.maintain.purge(experiment="digits")
    assert gone in done.run_ids
    kept = lake.get_run(logged(lake, "two")).info.experiment_id
    assert kept != ids.derived_experiment_id("digits")
    assert [each.name for each in lake.search_experiments()] == ["digits"]
    lake.close()


def test_a_run_that_begins_in_a_purged_experiment_is_shown_under_its_id(folder: Path) -> None:
    lake = open_lake(folder / "lake", refresh=0)
    logged(lake, "one")
    old = ids.derived_experiment_id("digits")
    lake.flush()
    purge_experiment(lake._storage.fs, lake=lake._storage.require_lake(), experiment_id=old)
    late = logged(lake, "late")  # this process has looked the name up before
    lake = again(lake)
    (found,) = lake.search_experiments()
    assert (found.experiment_id, found.name) == (old, old)
    assert lake.get_run(late).info.experiment_id == old


@pytest.mark.parametrize("compacted", ["neither", "source", "both"])
def test_a_copied_lake_gives_the_same_answers(folder: Path, compacted: str) -> None:
    lake = open_lake(folder / "lake", refresh=0)
    one = logged(lake, "one")
    other = logged(lake, "two", experiment="letters")
    lake.set_experiment_tags(ids.derived_experiment_id("letters"), {"team": "vision"})
    lake.rename_experiment(ids.derived_experiment_id("letters"), "words")
    lake.delete_run(other)
    lake.close()

    def compact(which: Lake) -> None:
        if compacted == "both" or (compacted == "source" and which is lake):
            fs, of = which._storage.fs, which._storage.require_lake()
            keeper = Compactor(fs, lake=of)
            for experiment in keeper.experiments():
                keeper.compact(experiment)
            vacuum(fs, lake=of, grace_s=0, is_dry_run=False)

    copy = open_lake(folder / "copy", refresh=0)
    compact(lake)
    done = copy_lake(lake._storage, copy._storage)
    assert (done.runs, done.artifacts, done.names, done.problems) == (2, 2, (), ())
    compact(copy)
    with lake.start_run(run_id=one) as run:
        run.log({"loss": 9.0}, step=9)
    lake.close()
    copy_lake(lake._storage, copy._storage)
    lake, copy = again(lake), again(copy)
    assert answers(copy) == answers(lake)
    found = copy.get_experiment_by_name("words")
    assert found is not None
    assert found.experiment_id == ids.derived_experiment_id("letters")
    assert copy.artifacts.download(one, "notes.txt").read_text() == "words of one"
