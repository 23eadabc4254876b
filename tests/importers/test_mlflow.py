"""What the real MLflow tracked comes whole, from its folder and from its database, and goes out."""

from __future__ import annotations

import shutil
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from runlake import ids
from runlake.dataset.entity import input_rows
from runlake.errors import NotFoundError
from runlake.importers import export_to, import_from
from runlake.importers.mlflow_client import without_password
from runlake.importers.source import SourceError
from runlake.lake import open_lake
from runlake.lake_parts import rows_of
from runlake.query.logged import read_linked
from runlake.questions import ask
from tests.importers.made import everything
from tests.importers.mlflow_made import T_MS, Tracked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from runlake.importers import Report
    from runlake.lake import Lake

pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def _memory() -> Lake:
    return open_lake(f"memory://{ids.new_nonce()}/lake", refresh=0)


class Came(NamedTuple):
    """A lake that MLflow's runs came into."""

    lake: Lake
    report: Report
    tracked: Tracked


@pytest.fixture(scope="module", params=["mlflow_folder", "mlflow_database", "mlflow_server"])
def came(request: pytest.FixtureRequest) -> Iterator[Came]:
    """The same runs from each of MLflow's stores, in a lake of their own."""
    tracked: Tracked = request.getfixturevalue(request.param)
    with _memory() as lake:
        yield Came(lake, import_from("mlflow", _source(tracked), lake), tracked)


def _source(tracked: Tracked) -> str:
    return tracked.uri if tracked.uri.startswith("http") else str(tracked.place)


def test_mlflow_store_comes_whole(came: Came) -> None:
    lake, report, tracked = came
    assert report.is_exact, (report.problems, report.losses)
    assert (report.brought, report.checked, report.models, report.versions) == (5, 5, 2, 3)
    assert (report.points, report.artifacts, report.inputs) == (44, 4, 1)
    assert report.logged_models == 2
    child, parent = tracked.ids["child"], tracked.ids["parent"]
    record = lake.get_run(child)
    assert record.info.run_name == "child"
    assert record.info.status == "FAILED"
    assert (record.info.start_time, record.info.end_time) == (T_MS, T_MS + 5000)
    assert record.info.parent_run_id == parent
    assert record.data.params == {"lr": "0.1", "empty": " "}
    assert record.data.tags["note"] == "zwei\nZeilen ü"
    assert lake.get_run(parent).info.user_id == "ada"
    assert lake.get_run(parent).info.source_name == "train.py"
    assert lake.get_run(tracked.ids["open"]).info.status == "RUNNING"
    stages = [lake.get_run(tracked.ids[name]).info for name in ("deleted", "in the bin")]
    assert [info.lifecycle_stage for info in stages] == ["deleted", "deleted"]
    points = lake.sql(
        "SELECT step, epoch_ms(timestamp) AS at, value FROM metrics "
        "WHERE run_id = ? AND key = 'loss' ORDER BY step",
        [child],
    ).rows()
    assert points == [(step, T_MS + step, 1 / (step + 1)) for step in range(40)]
    strange = lake.sql("SELECT step, isnan(value) FROM metrics WHERE key = 'val/acc' ORDER BY 1")
    assert strange.rows() == [(-3, True), (2**40, False)]
    assert lake.artifacts.download(child, "notes/a.txt").read_bytes() == b"hello"
    assert lake.maintain.verify(artifacts=True).is_sound


def test_logged_models_come_with_files_and_measures(came: Came) -> None:
    lake, model_id, child = came.lake, came.tracked.model_id, came.tracked.ids["child"]
    rows = lake.sql(
        "SELECT model_id, name, source_run_id, status, params, "
        "map_from_entries(list_filter(map_entries(tags), lambda of: of.key NOT LIKE 'mlflow.%')), "
        "metrics FROM logged_models ORDER BY name DESC"
    ).rows()
    lone_id = came.tracked.lone_id
    assert [row[:4] for row in rows] == [
        (model_id, "net", child, "READY"),
        (lone_id, "lone", None, "READY"),
    ]
    assert [list(map(dict, row[4:])) for row in rows] == [
        [{"p": "2"}, {"t": "1"}, {"val/f1": 0.5}],
        [{}, {"of": "nobody"}, {}],
    ]
    assert (lake.registry.download("models:/lone/1") / "weights.bin").read_bytes() == b"weights"
    file = lake.artifacts.download(child, f"_models/{model_id}/weights.bin")
    assert file.read_bytes() == b"weights"
    said = lake.sql("SELECT run_id, kind, key FROM events WHERE kind IN ('output', 'model_input')")
    readers = [came.tracked.ids[name] for name in ("parent", "open")]
    assert sorted(said.rows()) == sorted(
        [(child, "output", model_id), *((run_id, "model_input", model_id) for run_id in readers)]
    )


def test_experiments_and_data_sets_come_with_what_is_said_of_them(came: Came) -> None:
    lake = came.lake
    rows = lake.sql("SELECT name, lifecycle_stage FROM experiments ORDER BY name").rows()
    assert dict(rows) == {
        "Default": "active",
        "digits": "active",
        "empty": "active",
        "gone": "deleted",
    }
    digits = lake.get_experiment_by_name("digits")
    assert digits is not None
    assert digits.tags["team"] == "vision"
    made_ms = came.tracked.made_ms["digits"]
    assert digits.creation_time == made_ms
    inputs = lake.sql("SELECT name, digest, context, schema, profile FROM inputs").rows()
    assert inputs == [("train", "abc12345", "training", '{"s": 1}', '{"rows": 1}')]


def test_registered_models_keep_numbers_aliases_stages_and_times(came: Came) -> None:
    registry, child = came.lake.registry, came.tracked.ids["child"]
    model = registry.get_registered_model("net")
    assert (model.description, model.tags) == ("a net", {"a": "b"})
    assert model.aliases == {"champion": 3}
    first, third = (registry.get_model_version("net", number) for number in (1, 3))
    assert (first.current_stage, first.tags, first.description) == ("Staging", {"n": "0"}, "v0")
    assert (third.run_id, third.source) == (child, f"runs:/{child}/model")
    model_id = came.tracked.model_id
    assert first.logged_model_id is None
    if came.tracked.place.is_dir():  # MLflow's databases forget which model it is
        assert third.logged_model_id == model_id
        assert third.location == f"runs:/{child}/_models/{model_id}"
    assert third.creation_timestamp == came.tracked.made_ms["net/3"]
    with pytest.raises(NotFoundError):
        registry.get_model_version("net", 2)


def test_import_again_changes_nothing(came: Came) -> None:
    before = everything(came.lake)
    report = import_from("mlflow", _source(came.tracked), came.lake)
    assert (report.already, report.points, report.models, report.versions) == (5, 0, 0, 0)
    assert report.is_exact
    assert everything(came.lake) == before


def test_run_that_went_on_in_mlflow_is_brought_up_to_date(
    mlflow_folder: Tracked, tmp_path: Path
) -> None:
    root = tmp_path / "mlruns"
    shutil.copytree(mlflow_folder.place, root)
    child = mlflow_folder.ids["child"]
    (folder,) = root.glob(f"*/{child}")
    with _memory() as lake:
        import_from("mlflow", str(root), lake)
        with (folder / "metrics" / "loss").open("a") as lines:
            lines.write(f"{T_MS} inf 40\n{T_MS} 3.5 41.7 train abc\n")
        # Measured of a model, on no data set.
        (folder / "metrics" / "plain").write_text(f"{T_MS} 0.5 1\n")
        (model,) = root.glob(f"*/models/{mlflow_folder.model_id}")
        (model / "metrics" / "plain").write_text(f"{T_MS} 0.5 1 {child}\n")
        (folder / "tags" / "note").write_text("new")
        report = import_from("mlflow", str(tmp_path), lake)
        assert report.problems == []
        assert (report.grown, report.already, report.points) == (1, 4, 3)
        assert {loss.what.partition(":")[0] for loss in report.losses} == {
            "step was no whole number",
            "the data set that a metric was measured on is not kept with the point",
        }
        assert lake.get_run(child).data.tags["note"] == "new"
        counts = lake.sql("SELECT count FROM metric_summary WHERE key = 'loss'").rows()
        assert counts == [(42,)]


def test_server_of_before_mlflow_3_gives_its_runs(
    mlflow_server: Tracked, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.server import app  # noqa: PLC0415 - takes seconds

    serve = app.wsgi_app

    def older(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        if "/logged-models" not in environ["PATH_INFO"]:
            return serve(environ, start)  # type: ignore[no-any-return]
        start("404 NOT FOUND", [("Content-Type", "text/html")])
        return [b"<title>404 Not Found</title>"]

    monkeypatch.setattr(app, "wsgi_app", older)
    with _memory() as lake:
        report = import_from("mlflow", mlflow_server.uri, lake)
        assert report.problems == []
        assert (report.brought, report.logged_models, report.models) == (5, 0, 2)


def test_only_one_experiment_comes_if_it_is_named(mlflow_folder: Tracked) -> None:
    with _memory() as lake:
        report = import_from(
            "mlflow", str(mlflow_folder.place), lake, experiment="gone", models="false"
        )
        assert (report.brought, report.models) == (1, 0)
        assert report.experiments == ["gone"]


def test_places_that_hold_nothing_of_mlflow_are_told(tmp_path: Path) -> None:
    with _memory() as lake:
        with pytest.raises(NotFoundError, match="there is no"):
            import_from("mlflow", str(tmp_path / "none"), lake)
        with pytest.raises(SourceError, match="no experiments of MLflow"):
            import_from("mlflow", str(tmp_path), lake)
        (tmp_path / "file.db").write_text("no database")
        with pytest.raises(SourceError, match="neither a folder of MLflow's nor a SQLite"):
            import_from("mlflow", str(tmp_path / "file.db"), lake)


def test_broken_run_of_a_folder_is_told_and_the_others_come(
    mlflow_folder: Tracked, tmp_path: Path
) -> None:
    root = tmp_path / "mlruns"
    shutil.copytree(mlflow_folder.place, root)
    (folder,) = root.glob(f"*/{mlflow_folder.ids['child']}")
    (folder / "metrics" / "loss").write_text("a b c\n")
    with _memory() as lake:
        report = import_from("mlflow", str(root), lake, models="false")
        assert (report.brought, report.failed) == (4, 1)
        assert "is no point of a metric" in report.problems[0]


def test_password_of_an_address_is_not_told() -> None:
    assert without_password("postgresql://a:b@host/db") == "postgresql://a:***@host/db"
    assert without_password("sqlite:///x.db") == "sqlite:///x.db"


def _models(lake: Lake) -> list[object]:
    """Return what a lake says of models, but for ids and times, which MLflow gives anew."""
    registry = lake.registry
    logged = lake.sql(
        "SELECT m.name, m.model_type, m.status, m.params, m.metrics, m.tags['of'], m.tags['t'], "
        "r.run_name FROM logged_models m LEFT JOIN runs r ON r.run_id = m.source_run_id "
        "ORDER BY m.name"
    ).rows()
    names = dict(lake.sql("SELECT model_id, name FROM logged_models").rows())
    runs = dict(lake.sql("SELECT run_id, run_name FROM runs").rows())
    linked = ask(lake, lambda query: read_linked(query, list(runs)))
    links = sorted(
        (
            str(runs[run_id]),
            [names[each] for each in found.inputs],
            [(names[each], step) for each, step in found.outputs],
        )
        for run_id, found in linked.items()
    )
    registered = [
        (
            version.name,
            version.version,
            version.description,
            version.tags,
            version.current_stage,
            version.aliases,
            None if version.run_id is None else lake.get_run(version.run_id).info.run_name,
        )
        for version in registry.search_model_versions(max_results=None)
    ]
    models = [
        (model.name, model.description, model.tags.get("a"), model.aliases)
        for model in registry.search_registered_models(max_results=None)
    ]
    return [logged, links, sorted(registered, key=str), models]


def test_runs_go_out_to_mlflow_and_come_back_the_same(
    mlflow_folder: Tracked, empty_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # MLflow puts artifacts there
    shutil.copy(empty_database, tmp_path / "out.db")
    uri = f"sqlite:///{tmp_path}/out.db"
    with _memory() as lake, _memory() as back:
        import_from("mlflow", str(mlflow_folder.place), lake)
        report = export_to("mlflow", uri, lake)
        assert report.problems == []
        assert (report.brought, report.points, report.artifacts) == (5, 44, 4)
        assert (report.logged_models, report.models, report.versions) == (2, 2, 3)
        again = export_to("mlflow", uri, lake)
        assert (again.already, again.points, again.artifacts, again.problems) == (5, 0, 0, [])
        assert (again.logged_models, again.models, again.versions) == (0, 0, 0)
        assert import_from("mlflow", uri, back).problems == []
        assert [_models(each) for each in (lake, back)] == [_models(lake)] * 2
        assert (back.registry.download("models:/lone/1") / "weights.bin").read_bytes() == b"weights"
        found = [
            lake.sql(
                "SELECT key, step, timestamp, CAST(value AS VARCHAR) FROM metrics ORDER BY ALL"
            ).rows(),
            lake.sql(
                "SELECT run_name, experiment_name, status, start_time, end_time, user_id, params, "
                "lifecycle_stage FROM runs ORDER BY run_name"
            ).rows(),
        ]
        home = [
            back.sql(
                "SELECT key, step, timestamp, CAST(value AS VARCHAR) FROM metrics ORDER BY ALL"
            ).rows(),
            back.sql(
                "SELECT run_name, experiment_name, status, start_time, end_time, user_id, params, "
                "lifecycle_stage FROM runs ORDER BY run_name"
            ).rows(),
        ]
        assert home == found
        kept = back.sql("SELECT value FROM tags WHERE key = 'runlake.run_id'").rows()
        assert {run_id for (run_id,) in kept} == set(mlflow_folder.ids.values())


def test_run_that_is_half_out_or_has_grown_gets_the_rest(
    empty_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(empty_database, tmp_path / "out.db")
    uri = f"sqlite:///{tmp_path}/out.db"
    with _memory() as lake:
        with lake.start_run("a", experiment="one") as run:
            run.log_metric("loss", 1.0, step=0, timestamp=T_MS)
            run.log_metric("a(b)", 1.0)
            run.log_metric("far", float("inf"), timestamp=T_MS)
            run.log_param("long", "x" * 7000)
        first = export_to("mlflow", uri, lake)
        assert first.problems == []
        assert {loss.what.partition(":")[0] for loss in first.losses} >= {
            "metric left out",
            "param left out",
            "infinity",
        }
        with lake.start_run(run_id=run.run_id) as more:
            more.log_metric("loss", 0.5, step=1, timestamp=T_MS)
        second = export_to("mlflow", uri, lake, run_ids=[run.run_id])
        assert (second.grown, second.problems) == (1, [])
        read = SimpleNamespace(name="train", digest="abc")
        said = input_rows(run.run_id, read, "training", tags={})
        home = run.info.experiment_id
        rows_of(lake, run.run_id, experiment_id=home, experiment_name="one").log(said)
        third = export_to("mlflow", uri, lake)
        assert (third.grown, third.inputs, third.problems) == (1, 1, [])
        with _memory() as back:
            import_from("mlflow", uri, back)
            rows = back.sql("SELECT step, value FROM metrics WHERE key = 'loss' ORDER BY 1").rows()
            assert rows == [(0, 1.0), (1, 0.5)]


def test_registry_goes_out_under_its_numbers_and_is_brought_up_to_date(
    empty_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.tracking import MlflowClient  # noqa: PLC0415 - takes seconds

    monkeypatch.chdir(tmp_path)
    shutil.copy(empty_database, tmp_path / "out.db")
    uri = f"sqlite:///{tmp_path}/out.db"
    client = MlflowClient(uri, uri)
    with _memory() as lake:
        with lake.start_run("a", experiment="one") as run:
            run.log_text("w", "net/w.txt")
        registry = lake.registry
        registry.create_registered_model("net", description="a net")
        for number in (1, 2, 3):
            registry.create_model_version(
                "net", f"runs:/{run.run_id}/net", run_id=run.run_id, tags={"n": str(number)}
            )
        registry.delete_model_version("net", 2)
        registry.set_registered_model_alias("net", "champion", 3)
        first = export_to("mlflow", uri, lake)
        assert (first.problems, first.models, first.versions) == ([], 1, 2)
        there = {int(each.version): each for each in client.search_model_versions("name='net'")}
        assert sorted(there) == [1, 3]
        made = there[1].run_id
        assert (there[1].source, there[1].tags) == (f"runs:/{made}/net", {"n": "1"})
        assert client.get_run(made).data.tags["runlake.run_id"] == run.run_id

        registry.create_model_version("net", f"runs:/{run.run_id}/net", run_id=run.run_id)
        registry.set_registered_model_alias("net", "champion", 4)
        registry.transition_model_version_stage("net", 1, "Archived")
        registry.delete_model_version("net", 3)
        second = export_to("mlflow", uri, lake)
        assert (second.problems, second.versions) == ([], 1)
        assert "version that the lake deleted stays there" in {each.what for each in second.losses}
        assert client.get_model_version_by_alias("net", "champion").version in {4, "4"}
        assert client.get_model_version("net", "1").current_stage == "Archived"

        client.delete_model_version("net", "1")
        third = export_to("mlflow", uri, lake)
        assert (third.problems, third.versions) == ([], 0)
        assert "version that was deleted there" in {each.what for each in third.losses}
        some = export_to("mlflow", uri, lake, run_ids=[run.run_id])
        assert any("registered models stay" in each.what for each in some.losses)
