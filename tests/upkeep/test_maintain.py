"""`lake.maintain`: the same answers before and after, on each store."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from runlake.errors import ConflictError, InvalidInputError, NotFoundError, StateError
from runlake.lake import open_lake
from runlake.storage.snapshot import Snapshots
from runlake.upkeep import compact
from tests.storage.lakes import named, put

if TYPE_CHECKING:
    from pathlib import Path

    from runlake.lake import Lake
    from runlake.upkeep.work import Compacted
    from tests.conftest import Place

pytestmark = pytest.mark.filesystems("local", "memory", "s3")

ASKED = """
    SELECT r.run_name, r.status, r.params['lr'] AS lr, m.step, m.value, s.count
    FROM runs r JOIN metrics m USING (run_id) JOIN metric_summary s USING (run_id, key)
    ORDER BY ALL
"""


def fill(lake: Lake, *, experiment: str = "digits", runs: int = 3) -> list[str]:
    """Log runs, each through a writer of its own, and return their ids."""
    ids = []
    for number in range(runs):
        with lake.start_run(f"{experiment}-{number}", experiment=experiment) as run:
            run.log_params({"lr": number / 10})
            for step in range(3):
                run.log({"loss": number + step}, step=step)
            run.log_text("hello", "hello.txt")
        ids.append(run.run_id)
        lake.close()
    return ids


def live(lake: Lake) -> int:
    """Return how many segments of experiments are not compacted."""
    storage = lake._storage
    snapshot = Snapshots(storage.fs, lake=storage.require_lake()).take()
    return len([each for each in snapshot.segments if each.name.experiment_id != "_lake"])


def test_compact_of_all_changes_no_answer_and_leaves_no_segment(lake: Lake) -> None:
    fill(lake)
    fill(lake, experiment="odd", runs=2)
    before = lake.sql(ASKED)
    told: list[Compacted] = []
    done = lake.maintain.compact(progress=told.append)
    lake.refresh()
    assert lake.sql(ASKED).equals(before)
    assert live(lake) == 0
    assert done.segments >= 5
    assert done.rows == sum(each.compacted.rows for each in done.experiments)
    assert done.size_bytes > 0
    assert done.problems == ()
    assert {each.experiment_id for each in told} == {
        each.compacted.experiment_id for each in done.experiments
    }
    again = lake.maintain.compact()
    assert (again.segments, again.rows, again.size_bytes, again.freed_bytes) == (0, 0, 0, 0)


@pytest.mark.filesystems("local")
def test_compact_takes_one_experiment_by_name_or_id(lake: Lake) -> None:
    fill(lake)
    fill(lake, experiment="odd", runs=2)
    assert lake.maintain.compact("digits").segments == 3
    odd = lake.get_experiment_by_name("odd")
    assert odd is not None
    assert lake.maintain.compact(odd.experiment_id).segments == 2
    assert live(lake) == 0


@pytest.mark.filesystems("local")
def test_an_experiment_goes_by_its_new_name_only(lake: Lake) -> None:
    fill(lake)
    found = lake.get_experiment_by_name("digits")
    assert found is not None
    lake.rename_experiment(found.experiment_id, "numbers")
    with pytest.raises(NotFoundError, match="'digits'"):
        lake.maintain.compact("digits")
    assert lake.maintain.compact("numbers").segments == 3


@pytest.mark.filesystems("local")
def test_the_experiment_that_was_never_named_is_found(lake: Lake) -> None:
    lake.start_run().finish()
    lake.close()
    assert lake.maintain.compact("Default").segments == 1
    assert lake.maintain.compact("0").segments == 0


@pytest.mark.filesystems("local")
def test_shards_share_the_experiments(lake: Lake) -> None:
    for name in ("a", "b", "c", "d"):
        fill(lake, experiment=name, runs=1)
    shards = [lake.maintain.compact(shard=f"{number}/3") for number in (1, 2, 3)]
    done = [each.compacted.experiment_id for shard in shards for each in shard.experiments]
    assert len(done) == len(set(done)) == 5
    assert live(lake) == 0


@pytest.mark.filesystems("local")
@pytest.mark.parametrize("shard", ["0/2", "3/2", "half", "1/0", "1"])
def test_a_shard_that_is_none_is_refused(lake: Lake, shard: str) -> None:
    fill(lake, runs=1)
    with pytest.raises(InvalidInputError, match="shard"):
        lake.maintain.compact(shard=shard)


@pytest.mark.filesystems("local")
def test_an_experiment_and_a_shard_are_refused(lake: Lake) -> None:
    fill(lake, runs=1)
    with pytest.raises(InvalidInputError, match="not both"):
        lake.maintain.compact("digits", shard="1/2")


@pytest.mark.filesystems("local")
def test_full_leaves_one_file_of_each_table(lake: Lake) -> None:
    for _ in range(3):
        fill(lake, runs=1)
        lake.maintain.compact("digits")
    lake.maintain.compact("digits", full=True)
    storage = lake._storage
    snapshot = Snapshots(storage.fs, lake=storage.require_lake()).take(["x"])
    experiment = lake.get_experiment_by_name("digits")
    assert experiment is not None
    counts = {
        table: len([each for each in files if each.experiment_id == experiment.experiment_id])
        for table, files in snapshot.manifest.tables.items()
    }
    assert set(counts.values()) == {1}


@pytest.mark.filesystems("local")
def test_what_others_compact_again_and_again_is_named_and_the_rest_is_done(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(lake)
    fill(lake, experiment="odd", runs=1)
    odd = lake.get_experiment_by_name("odd")
    assert odd is not None
    compact_one = compact.Compactor.compact

    def lose(self: compact.Compactor, experiment_id: str) -> Compacted:
        if experiment_id == odd.experiment_id:
            raise ConflictError("others were first")
        return compact_one(self, experiment_id)

    monkeypatch.setattr(compact.Compactor, "compact", lose)
    done = lake.maintain.compact()
    assert done.problems == ("others were first",)
    assert done.segments >= 3


def test_vacuum_says_first_and_deletes_then(lake: Lake) -> None:
    fill(lake)
    lake.maintain.compact()
    assert lake.maintain.vacuum().removed == ()
    said = lake.maintain.vacuum(grace_s=0)
    assert said.is_dry_run
    assert said.size_bytes == sum(each.size_bytes for each in said.removed) > 0
    fs = lake._storage.fs
    assert all(fs.get(each.key) for each in said.removed)
    gone = lake.maintain.vacuum(dry_run=False, grace_s=0)
    assert gone.removed == said.removed
    assert not {each.key for each in fs.list("log/")} & {each.key for each in gone.removed}
    lake.refresh()
    assert lake.search_runs().height == 3


@pytest.mark.filesystems("local")
def test_vacuum_of_an_experiment_leaves_the_others(lake: Lake) -> None:
    fill(lake)
    fill(lake, experiment="odd", runs=1)
    lake.maintain.compact()
    odd = lake.get_experiment_by_name("odd")
    assert odd is not None
    found = lake.maintain.vacuum(experiment="odd", grace_s=0)
    assert {each.key.split("/")[1] for each in found.removed} == {
        f"experiment_id={odd.experiment_id}"
    }


@pytest.mark.filesystems("local")
def test_a_negative_grace_is_refused(lake: Lake) -> None:
    fill(lake, runs=1)
    with pytest.raises(InvalidInputError, match="grace_s"):
        lake.maintain.vacuum(grace_s=-1)


@pytest.mark.filesystems("local", "s3")
def test_whoever_compacts_vacuums_what_went_an_hour_ago(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(lake)
    lake.maintain.compact()
    kept = len(lake._storage.fs.list("log/"))
    fs = type(lake._storage.fs)
    now_us = fs.now_us
    monkeypatch.setattr(fs, "now_us", lambda self: now_us(self) + 3_700_000_000)
    fill(lake, runs=1)
    done = lake.maintain.compact()
    assert done.freed_bytes > 0
    assert len(lake._storage.fs.list("log/")) < kept + 1


def test_purge_removes_runs_from_every_answer_at_once(lake: Lake) -> None:
    ids = fill(lake)
    assert lake.search_runs().height == 3
    done = lake.maintain.purge(ids[0])
    assert done.run_ids == (ids[0],)
    assert done.artifacts == 1
    assert sorted(lake.search_runs()["run_id"].to_list()) == sorted(ids[1:])
    assert lake.maintain.purge([ids[0]]).rows == 0


@pytest.mark.filesystems("local")
def test_purge_of_an_experiment_takes_its_runs(lake: Lake) -> None:
    fill(lake)
    odd = fill(lake, experiment="odd", runs=2)
    done = lake.maintain.purge(experiment="odd")
    assert sorted(done.run_ids) == sorted(odd)
    assert lake.search_runs().height == 3
    assert lake.get_experiment_by_name("odd") is None


@pytest.mark.filesystems("local")
def test_purge_knows_what_this_process_has_just_logged(lake: Lake) -> None:
    run = lake.start_run()
    run.log({"loss": 1.0})
    run.finish()
    assert lake.maintain.purge(run.run_id).run_ids == (run.run_id,)


@pytest.mark.filesystems("local")
def test_purge_wants_runs_or_an_experiment(lake: Lake) -> None:
    (run_id,) = fill(lake, runs=1)
    with pytest.raises(InvalidInputError, match="give purge"):
        lake.maintain.purge()
    with pytest.raises(InvalidInputError, match="give purge"):
        lake.maintain.purge(run_id, experiment="digits")
    with pytest.raises(NotFoundError):
        lake.maintain.purge("f" * 32)


@pytest.mark.filesystems("local", "s3")
def test_a_purged_run_leaves_the_published_tables_whole(lake: Lake) -> None:
    ids = fill(lake)
    lake.maintain.compact()
    assert {each.version for each in lake.maintain.publish()} == {0}
    done = lake.maintain.purge(ids[0])
    assert "projection" not in {each.kind for each in done.left}
    assert {each.added for each in lake.maintain.publish()} == {0}


@pytest.mark.filesystems("local")
def test_publish_knows_one_format(lake: Lake) -> None:
    fill(lake, runs=1)
    with pytest.raises(InvalidInputError, match="'iceberg'"):
        lake.maintain.publish(format="iceberg")


def test_verify_finds_a_compacted_lake_sound(lake: Lake) -> None:
    fill(lake)
    lake.maintain.compact()
    lake.maintain.vacuum(dry_run=False, grace_s=0)
    report = lake.maintain.verify()
    assert report.is_sound
    assert report.table_rows > 0


@pytest.mark.filesystems("local", "s3")
def test_a_read_only_lake_is_changed_by_nothing(lake: Lake, lake_url: Place) -> None:
    (run_id,) = fill(lake, runs=1)
    options = lake_url.storage_options
    with open_lake(lake_url.url, storage_options=options, read_only=True) as reader:
        for call in (
            reader.maintain.compact,
            lambda: reader.maintain.vacuum(dry_run=False),
            lambda: reader.maintain.purge(run_id),
            lambda: reader.maintain.verify(repair=True),
            reader.maintain.publish,
            reader.maintain.recover,
        ):
            with pytest.raises(StateError, match="read-only"):
                call()
        assert reader.maintain.vacuum().is_dry_run
        assert reader.maintain.verify().is_sound


def test_where_there_is_no_lake_nothing_is_made(tmp_path: Path) -> None:
    lake = open_lake(tmp_path / "none")
    for call in (lake.maintain.compact, lake.maintain.vacuum, lake.maintain.publish):
        with pytest.raises(NotFoundError, match="is not a lake"):
            call()
    assert not (tmp_path / "none").exists()


@pytest.mark.filesystems("local")
def test_a_store_that_cannot_create_conditionally_wants_the_callers_word(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(lake)
    monkeypatch.setattr(lake._storage.fs, "conditional_create", False)
    with pytest.raises(StateError, match="alone"):
        lake.maintain.compact()
    assert lake.maintain.compact(alone=True).segments >= 3


@pytest.mark.filesystems("local")
def test_a_damaged_segment_is_named_and_what_is_whole_is_compacted(lake: Lake) -> None:
    fill(lake)
    fs = lake._storage.fs
    key = next(each.key for each in fs.list("log/") if "_lake" not in each.key)
    fs.put(key, fs.get(key)[:-10])
    done = lake.maintain.compact()
    assert len(done.problems) == 1
    assert key in done.problems[0]
    assert live(lake) == 1


@pytest.mark.filesystems("local")
def test_made_up_experiments_are_compacted_by_their_id(lake: Lake) -> None:
    lake._storage.ensure_lake()
    put(lake._storage.fs, named(1, 0, 4))
    assert lake.maintain.compact("exp").segments in {0, 1}
