"""Files of runs through MLflow's repository for lakes, on each store."""

from __future__ import annotations

import hashlib
import inspect
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runlake.errors import FormatError
from runlake.mlflow_plugin import uris
from runlake.mlflow_plugin.lakes import lake_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from runlake.lake import Lake
    from runlake.mlflow_plugin.artifacts import LakeArtifactRepository

pytestmark = pytest.mark.filterwarnings("ignore:::mlflow")

EXPERIMENT: Final = "e1"
RUN: Final = "0" * 32
MODEL: Final = f"_models/m-{'1' * 32}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Files, some below folders."""
    root = tmp_path / "given"
    for path in ("a.txt", "b/c.txt", "b/d/e.txt", "Größe 1.txt"):
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"content of {path}", encoding="utf-8")
    return root


def repository(store_uri: str, *parts: str) -> LakeArtifactRepository:
    """Return MLflow's repository for a place."""
    from mlflow.store.artifact.artifact_repository_registry import (  # noqa: PLC0415 - slow
        get_artifact_repository,
    )

    found: Any = get_artifact_repository(uris.artifact_uri(store_uri, *parts))
    return found  # type: ignore[no-any-return]


def end_run(store_uri: str) -> Lake:
    """Return the lake, with a run that has ended."""
    lake = lake_of(store_uri)
    with lake.start_run(run_id=RUN, experiment_id=EXPERIMENT):
        pass
    return lake


def refusal(code: str) -> Any:  # noqa: ANN401 - pytest's
    """Expect an error of MLflow's."""
    from mlflow.exceptions import MlflowException  # noqa: PLC0415 - slow

    return pytest.raises(MlflowException, check=lambda error: error.error_code == code)


def listed(repo: LakeArtifactRepository, path: str | None = None) -> list[tuple[str, bool, Any]]:
    """Return what is listed."""
    return [(each.path, each.is_dir, each.file_size) for each in repo.list_artifacts(path)]


@pytest.mark.filesystems("local", "s3")
def test_files_come_back_as_they_were_and_are_on_record(store_uri: str, folder: Path) -> None:
    lake = end_run(store_uri)
    repo = repository(store_uri, EXPERIMENT, RUN)
    repo.log_artifacts(folder, "all")
    repo.log_artifact(folder / "a.txt")
    assert listed(repo) == [("a.txt", False, 16), ("all", True, None)]
    assert [path for path, *_ in listed(repo, "all")] == ["all/Größe 1.txt", "all/a.txt", "all/b"]
    assert listed(repo, "all/a.txt") == listed(repo, "none") == []
    there = Path(repo.download_artifacts("all"))
    assert there.name == "all"
    found = {file.relative_to(there).as_posix(): file.read_text() for file in files(there)}
    assert found == {path: f"content of {path}" for path in found}
    assert len(found) == 4
    assert Path(repo.download_artifacts("all/b/c.txt")).read_text() == "content of b/c.txt"
    rows = lake.sql("SELECT path, size, sha256 FROM artifacts WHERE run_id = ?", [RUN])
    wanted = {f"all/{path}": text for path, text in found.items()} | {"a.txt": found["a.txt"]}
    assert {(row["path"], row["sha256"]) for row in rows.to_dicts()} == {
        (path, hashlib.sha256(text.encode()).hexdigest()) for path, text in wanted.items()
    }
    # The lake's own functions find them too.
    assert [each.path for each in lake.artifacts.list(RUN)] == ["a.txt", "all"]


def files(folder: Path) -> list[Path]:
    """Return all files below a folder."""
    return [each for each in folder.rglob("*") if each.is_file()]


@pytest.mark.filesystems("memory")
def test_a_server_and_its_clients_mean_the_same_files(store_uri: str, folder: Path) -> None:
    end_run(store_uri)
    served, direct = repository(store_uri), repository(store_uri, EXPERIMENT, RUN)
    outer = f"{EXPERIMENT}/{RUN}/artifacts"
    served.log_artifacts(folder, f"{outer}/all")
    direct.log_artifact(folder / "a.txt", "own/artifacts")
    assert listed(served, outer) == [
        (f"{outer}/{path}", is_dir, size) for path, is_dir, size in listed(direct)
    ]
    assert listed(direct) == [("all", True, None), ("own", True, None)]
    there = Path(served.download_artifacts(f"{outer}/own/artifacts/a.txt"))
    assert there.read_text() == "content of a.txt"
    assert there.as_posix().endswith(f"{outer}/own/artifacts/a.txt")
    # A repository for a folder of a run.
    inner = repository(store_uri, EXPERIMENT, RUN, "own", "artifacts")
    assert listed(inner) == [("a.txt", False, 16)]
    assert [each.name for each in files(Path(inner.download_artifacts("")))] == ["a.txt"]
    served.delete_artifacts(f"{outer}/own")
    assert listed(direct) == [("all", True, None)]
    for path in ("", EXPERIMENT):
        with refusal("INVALID_PARAMETER_VALUE"):
            served.list_artifacts(path)
    for home in ("a b/r", f"{EXPERIMENT}/r r", f"@artifacts/{RUN}", f"{EXPERIMENT}/{'r' * 65}"):
        with refusal("INVALID_PARAMETER_VALUE"):
            served.log_artifact(folder / "a.txt", f"{home}/artifacts")
        assert listed(served, f"{home}/artifacts") == []


@pytest.mark.filesystems("memory")
def test_logged_models_of_a_run_are_not_among_its_artifacts(store_uri: str, folder: Path) -> None:
    lake = end_run(store_uri)
    run, model = (
        repository(store_uri, EXPERIMENT, RUN),
        repository(store_uri, EXPERIMENT, RUN, MODEL),
    )
    model.log_artifacts(folder)
    assert listed(run) == []
    assert files(Path(run.download_artifacts(""))) == []
    run.log_artifact(folder / "a.txt")
    assert [each.name for each in files(Path(run.download_artifacts("")))] == ["a.txt"]
    assert len(files(Path(model.download_artifacts("")))) == 4
    run.delete_artifacts()
    assert (listed(run), len(listed(model))) == ([], 3)
    model.delete_artifacts()
    assert listed(model) == []
    assert lake.sql("FROM artifacts").height == 0
    run.delete_artifacts("none")
    for name in ("_models", "_models/mine"):
        with refusal("INVALID_PARAMETER_VALUE"):
            run.log_artifact(folder / "a.txt", name)
    (folder / "_models").mkdir()
    (folder / "_models" / "mine.txt").write_text("mine")
    with refusal("INVALID_PARAMETER_VALUE"):
        run.log_artifacts(folder)
    assert listed(run) == []


@pytest.mark.filesystems("local")
def test_a_file_that_is_not_what_was_logged_is_not_handed_out(
    store_uri: str, folder: Path, tmp_path: Path
) -> None:
    lake = end_run(store_uri)
    repo = repository(store_uri, EXPERIMENT, RUN)
    repo.log_artifact(folder / "a.txt")
    served = repo.get_local_path("a.txt")
    assert served is not None
    assert Path(served).read_text() == "content of a.txt"
    Path(served).write_text("CONTENT of a.txt")
    target = tmp_path / "target"
    target.mkdir()
    with refusal("INTERNAL_ERROR"):
        repo.download_artifacts("a.txt", str(target))
    with refusal("INTERNAL_ERROR"):
        repo._download_file("a.txt", target / "b.txt")
    assert files(target) == []
    assert not lake.maintain.verify(artifacts=True).is_sound


@pytest.mark.filesystems("memory")
def test_what_is_not_there_is_said_so(store_uri: str, folder: Path, tmp_path: Path) -> None:
    end_run(store_uri)
    repo = repository(store_uri, EXPERIMENT, RUN)
    with refusal("RESOURCE_DOES_NOT_EXIST"):
        repo.download_artifacts("none.txt")
    with refusal("RESOURCE_DOES_NOT_EXIST"):
        repo.download_artifacts("", str(tmp_path / "none"))
    with refusal("INVALID_PARAMETER_VALUE"):
        repo.download_artifacts("", str(folder / "a.txt"))
    with refusal("INVALID_PARAMETER_VALUE"):
        repo.log_artifact(folder / "none.txt")
    assert repo.get_local_path("a.txt") is None


@pytest.mark.filesystems("local")
def test_clients_that_look_for_mlflows_words_find_them(
    store_uri: str, folder: Path, tmp_path: Path
) -> None:
    from mlflow.exceptions import MlflowException  # noqa: PLC0415 - slow

    end_run(store_uri)
    repo = repository(store_uri, EXPERIMENT, RUN)
    repo.log_artifacts(folder)
    told: dict[str, list[Callable[[], object]]] = {
        "No such artifact": [
            lambda: repo.download_artifacts("none.txt"),
            lambda: repo.get_local_path("none.txt"),
            lambda: repo._download_file("none.txt", tmp_path / "x"),
        ],
        "Invalid path": [lambda: repo.download_artifacts("/a.txt")],
        "must be a directory": [lambda: repo.download_artifacts("", str(folder / "a.txt"))],
        "refers to a directory": [lambda: repo.get_local_path("b")],
    }
    for words, calls in told.items():
        for call in calls:
            with pytest.raises(MlflowException, match=words):
                call()


@pytest.mark.filesystems("local")
def test_a_link_in_a_lakes_folder_leads_nobody_out_of_the_run(
    store_uri: str, folder: Path, tmp_path: Path
) -> None:
    lake = end_run(store_uri)
    repo = repository(store_uri, EXPERIMENT, RUN)
    repo.log_artifact(folder / "a.txt")
    place = repo.get_local_path("a.txt")
    assert place is not None
    secret = tmp_path / "secret" / "key"
    secret.parent.mkdir()
    secret.write_text("secret")
    Path(place).with_name("out").symlink_to(secret.parent)
    Path(place).with_name("key").symlink_to(secret)
    target = tmp_path / "target"
    target.mkdir()
    for path in ("out/key", "key"):
        for call in (repo.download_artifacts, repo.get_local_path, repo.delete_artifacts):
            with refusal("INTERNAL_ERROR"):
                call(path)
        with refusal("INTERNAL_ERROR"):
            repo._download_file(path, target / "key")
        with pytest.raises(FormatError):
            lake.artifacts.open(RUN, path)
    with refusal("INTERNAL_ERROR"):
        repo.list_artifacts("out")
    with refusal("INTERNAL_ERROR"):
        repo.download_artifacts("", str(target))
    assert (files(target), secret.read_text()) == ([], "secret")
    # The run's own folder may be one: it may have gone to a larger disk.
    home = Path(place).parent
    for name in ("out", "key"):
        (home / name).unlink()
    home.rename(tmp_path / "larger")
    home.symlink_to(tmp_path / "larger")
    assert Path(repo.download_artifacts("a.txt")).read_text() == "content of a.txt"


AWAY: Final = ("..", "../x", "a/../../x", "/x", "a//b", "a/./b", "./a", "a\\b", "a\0b", "a\nb")


@pytest.mark.filesystems("memory")
@pytest.mark.parametrize("path", AWAY)
def test_a_path_that_leaves_the_run_is_refused(store_uri: str, folder: Path, path: str) -> None:
    for parts in ((EXPERIMENT, RUN), (EXPERIMENT, RUN, "below"), ()):
        repo = repository(store_uri, *parts)
        outer = path if parts else f"{EXPERIMENT}/{RUN}/artifacts/{path}"
        with refusal("INVALID_PARAMETER_VALUE"):
            repo.log_artifact(folder / "a.txt", outer)
        with refusal("INVALID_PARAMETER_VALUE"):
            repo.download_artifacts(outer)
        with refusal("INVALID_PARAMETER_VALUE"):
            repo.delete_artifacts(outer)


words = st.text(st.sampled_from("ab.%#?@ é_-"), min_size=1, max_size=6)


@settings(
    max_examples=12,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(names=st.lists(words, min_size=1, max_size=3))
@pytest.mark.filesystems("memory")
def test_every_path_that_is_taken_is_listed_as_it_is(
    store_uri: str, folder: Path, names: list[str]
) -> None:
    from mlflow.exceptions import MlflowException  # noqa: PLC0415 - slow

    repo, path = repository(store_uri, EXPERIMENT, RUN), "/".join(names)
    try:
        repo.log_artifact(folder / "a.txt", path)
    except MlflowException as error:
        assert error.error_code == "INVALID_PARAMETER_VALUE"  # noqa: PT017 - it may be taken
        assert {".", ".."} & set(names)
        return
    assert (f"{path}/a.txt", False, 16) in listed(repo, path)
    assert Path(repo.download_artifacts(f"{path}/a.txt")).read_text() == "content of a.txt"


@pytest.mark.parametrize(
    "uri", ["runlake:///lake", "runlake:///lake/artifacts/e/r", "runlake://host/@artifacts/e/r"]
)
def test_an_address_that_is_no_lakes_is_refused(uri: str) -> None:
    from runlake.mlflow_plugin.artifacts import LakeArtifactRepository  # noqa: PLC0415 - slow

    with refusal("INVALID_PARAMETER_VALUE"):
        LakeArtifactRepository(uri)


@pytest.mark.filesystems("memory")
def test_an_address_with_a_path_behind_it_is_still_one(store_uri: str, folder: Path) -> None:
    from mlflow.utils.uri import append_to_uri_path  # noqa: PLC0415 - slow

    end_run(store_uri)
    repository(store_uri, EXPERIMENT, RUN).log_artifact(folder / "b" / "c.txt", "b")
    for root in (uris.artifact_uri("runlake:///lake"), uris.artifact_uri(store_uri)):
        assert append_to_uri_path(root, "e", "r") == f"{root}/e/r"
    # A dot is the folder itself, as in a folder of the local disk.
    same = repository(store_uri, EXPERIMENT, RUN, ".", "b")
    assert listed(same, ".") == listed(same) == [("c.txt", False, 18)]
    there = Path(same.download_artifacts("."))
    assert [file.read_text() for file in files(there)] == ["content of b/c.txt"]


# What MLflow's repositories can do, and what of it is not the base class's here.
OWN: Final = {
    "log_artifact",
    "log_artifacts",
    "list_artifacts",
    "download_artifacts",
    "get_local_path",
    "delete_artifacts",
}
# Works on top of these.
INHERITED: Final = {
    "flush_async_logging",
    "max_workers",
    # Traces: they keep files as runs do; a lake's tracking store has none.
    "download_archived_trace_data",
    "download_trace_attachment",
    "download_trace_attachment_to_file",
    "download_trace_data",
    "download_trace_data_to_file",
    "upload_archived_trace_data",
    "upload_archived_trace_data_bytes",
    "upload_attachment",
    "upload_trace_data",
}


def test_every_method_of_mlflows_repositories_is_decided() -> None:
    from mlflow.store.artifact.artifact_repo import ArtifactRepository  # noqa: PLC0415 - slow

    from runlake.mlflow_plugin.artifacts import LakeArtifactRepository  # noqa: PLC0415 - slow

    public = {name for name, _ in inspect.getmembers(ArtifactRepository) if re.match("[a-z]", name)}
    assert public <= OWN | INHERITED, "MLflow has a method that nobody has decided on"
    assert {*OWN, "_download_file"} <= set(vars(LakeArtifactRepository))
    assert not INHERITED & set(vars(LakeArtifactRepository))
