"""Files of runs: put, listed, opened, fetched and deleted, on every store."""

from __future__ import annotations

import hashlib
import os
import random
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runlake import testing
from runlake.artifacts import fetching, paths, stream
from runlake.artifacts.progress import Progress
from runlake.errors import (
    FormatError,
    InvalidInputError,
    NotFoundError,
    RunlakeWarning,
    StateError,
    StorageError,
)
from runlake.lake import Lake, open_lake
from runlake.storage import flow
from runlake.storage.localfs import LocalFilesystem
from runlake.storage.memoryfs import MemoryFilesystem
from runlake.testing.filesystems import Call, CountingFilesystem, FaultyFilesystem, Wrapper

if TYPE_CHECKING:
    import io
    from collections.abc import Callable, Iterator

    from runlake.run import Run
    from runlake.storage.filesystem import Range

pytestmark = pytest.mark.filesystems("local", "memory", "s3")

T = TypeVar("T")

ODD = (
    "with space.txt",
    "p\u00e4th/\u043a\u043b\u044e\u0447/\u9375.txt",  # one code point for each letter
    "pa\u0308th/nfd.txt",  # a letter and its dots
    "caf\u00e9.txt",
    "cafe\u0301.txt",
    "ends with dot.",
    "...",
    "..hidden",
    "a=b&c+d;e,f%20.txt",
    "[x]{y}(z)!'~@$*#?.txt",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467.txt",  # a family, joined
    "non\u00a0breaking.txt",
    "n" * 255,
    "/".join(["deep" * 10] * 19),
)
REFUSED = (
    "",
    "/",
    "..",
    ".",
    "/etc/passwd",
    "../up",
    "a/../../up",
    "a/./b",
    "a//b",
    "a\\b",
    "..\\up",
    "new\nline",
    "bell\a",
    "nul\0",
    "line\u2028separator",
    "lone\udc80surrogate",
    "n" * 256,
    "\u00e4" * 128,
    "/".join(["p" * 100] * 9),
    ".tmp-half",
    "sub/.tmp-half",
)


@pytest.fixture
def run(lake: Lake) -> Iterator[Run]:
    """An open run, on each store."""
    with lake.start_run() as opened:
        yield opened


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Lake]:
    with open_lake(tmp_path / "lake") as opened:
        yield opened


def noise(size: int, *, seed: int) -> bytes:
    return random.Random(seed).randbytes(size)  # noqa: S311 - repeatable on purpose


def tree(root: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def read_tree(root: Path) -> dict[str, bytes]:
    return {
        file.relative_to(root).as_posix(): file.read_bytes()
        for file in root.rglob("*")
        if file.is_file()
    }


def shown(lake: Lake, run_id: str) -> dict[str, tuple[int, str]]:
    """Return what the view says of a run's artifacts, without its provenance."""
    frame = lake.sql(
        "SELECT path, size, sha256 FROM artifacts WHERE run_id = ? "
        "AND NOT starts_with(path, 'provenance/')",
        [run_id],
    )
    return {path: (size, sha256) for path, size, sha256 in frame.rows()}


def content(lake: Lake, run_id: str, path: str) -> bytes:
    with lake.artifacts.open(run_id, path) as opened:
        return opened.read()


def said(data: bytes) -> tuple[int, str]:
    return len(data), hashlib.sha256(data).hexdigest()


def far_lake(inner: str) -> tuple[Lake, CountingFilesystem]:
    """Return a lake that is not local, and what counts its requests."""
    counting = CountingFilesystem(MemoryFilesystem(inner))
    return testing.open_lake(counting), counting


# Put, list, fetch.


def test_a_folder_comes_back_as_it_went(lake: Lake, run: Run, tmp_path: Path) -> None:
    files = {"a.txt": b"alpha", "empty": b"", "sub/b.bin": bytes(range(256)) * 999}
    run.log_artifacts(tree(tmp_path / "in", files), "data")
    run_id = run.run_id
    found = lake.artifacts.download(run_id, "data", target=tmp_path / "out")
    assert found == tmp_path / "out" / "data"
    assert read_tree(found) == files
    assert shown(lake, run_id) == {f"data/{name}": said(data) for name, data in files.items()}
    listed = {each.path: each.file_size for each in lake.artifacts.list(run_id, "data")}
    assert listed == {"data/a.txt": 5, "data/empty": 0, "data/sub": None}


def test_odd_names_come_back_letter_by_letter(lake: Lake, run: Run, tmp_path: Path) -> None:
    for name in ODD:
        run.log_text(name, f"odd/{name}")
    for name in ODD:
        file = lake.artifacts.download(run.run_id, f"odd/{name}", target=tmp_path / "one")
        assert file.read_text() == name
        with lake.artifacts.open(run.run_id, f"odd/{name}") as opened:
            assert opened.read() == name.encode()
    out = lake.artifacts.download(run.run_id, "odd", target=tmp_path / "all")
    assert {name: data.decode() for name, data in read_tree(out).items()} == {n: n for n in ODD}
    assert set(shown(lake, run.run_id)) == {f"odd/{name}" for name in ODD}
    lake.artifacts.delete(run.run_id, "odd")
    assert lake.artifacts.list(run.run_id, "odd") == []


@pytest.mark.parametrize("path", REFUSED)
def test_paths_that_leave_the_run_or_cannot_be_kept_are_refused(
    lake: Lake, run: Run, tmp_path: Path, path: str
) -> None:
    before = lake._storage.fs.list("artifacts/")
    for call in (
        lambda: run.log_text("x", path),
        lambda: lake.artifacts.open(run.run_id, path),
        lambda: lake.artifacts.delete(run.run_id, path),
        lambda: lake.artifacts.upload(
            run.run_id, tree(tmp_path / "f", {"x": b"x"}), artifact_path=path
        ),
    ):
        if call.__code__.co_consts and path == "":
            continue  # empty means the run's own folder, where a folder is asked for
        with pytest.raises(InvalidInputError):
            call()
    assert lake._storage.fs.list("artifacts/") == before


@given(text=st.text(max_size=300))
def test_a_path_that_is_taken_lies_below_its_run(text: str) -> None:
    try:
        found = paths.check_path(text)
    except InvalidInputError:
        return
    assert found == text.rstrip("/")
    assert os.path.normpath(f"/folder/{found}") == f"/folder/{found}"
    assert len(found.encode()) <= paths.PATH_BYTES
    inside = paths.local_target(Path("/folder"), found, url="lake")
    assert str(inside) == f"/folder/{found}"


@given(key=st.text(st.sampled_from("a./\\\0"), min_size=1, max_size=12))
def test_no_key_of_a_hostile_lake_is_written_outside_of_the_folder(key: str) -> None:
    try:
        target = paths.local_target(Path("/folder/out"), key, url="lake")
    except FormatError:
        return
    assert os.path.normpath(target).startswith("/folder/out/")


def test_a_lake_with_hostile_keys_writes_nothing_outside(tmp_path: Path) -> None:
    from fsspec.implementations.memory import MemoryFile, MemoryFileSystem  # noqa: PLC0415

    lake, _ = far_lake("hostile/lake")
    with lake.start_run() as run:
        run.log_text("good", "good.txt")
    (entry,) = (e for e in lake._storage.fs.list("artifacts/") if e.key.endswith("good.txt"))
    folder = "/hostile/lake/" + entry.key.rpartition("/")[0]
    for name in ("../../../../up.txt", "/etc/absolute", "a/../../up.txt"):
        path = f"{folder}/{name}"
        MemoryFileSystem.store[path] = MemoryFile(MemoryFileSystem(), path, b"evil")
    with pytest.raises(FormatError, match="outside of the folder"):
        lake.artifacts.download(run.run_id, target=tmp_path / "in" / "out")
    assert read_tree(tmp_path / "in") == {}
    good = lake.artifacts.download(run.run_id, "good.txt", target=tmp_path / "in" / "out")
    assert good.read_text() == "good"
    assert [file.name for file in tmp_path.rglob("*.txt")] == ["good.txt"]
    lake.close()


# Links and odd files.


def test_links_to_files_are_followed_and_links_to_folders_are_told(
    local: Lake, tmp_path: Path
) -> None:
    tree(tmp_path / "outside", {"blob": b"content", "folder/secret": b"secret"})
    root = tree(tmp_path / "in", {"plain": b"plain"})
    (root / "linked").symlink_to(tmp_path / "outside" / "blob")
    (root / "circle").symlink_to(root)
    (root / "away").symlink_to(tmp_path / "outside" / "folder")
    with local.start_run() as run, pytest.warns(RunlakeWarning, match="links to folders"):
        run.log_artifacts(root)
    assert set(shown(local, run.run_id)) == {"plain", "linked"}
    assert content(local, run.run_id, "linked") == b"content"


def test_what_is_no_file_is_refused_before_anything_is_sent(local: Lake, tmp_path: Path) -> None:
    root = tree(tmp_path / "in", {"a-first": b"plain"})
    with local.start_run() as run:
        (root / "dead").symlink_to(tmp_path / "nowhere")
        with pytest.raises(InvalidInputError, match="leads nowhere"):
            run.log_artifacts(root)
        with pytest.raises(InvalidInputError, match="leads nowhere"):
            run.log_artifact(root / "dead")
        (root / "dead").unlink()
        os.mkfifo(root / "pipe")
        with pytest.raises(InvalidInputError, match="no regular file"):
            run.log_artifacts(root)
        (root / "pipe").unlink()
        (root / "new\nline").write_text("x")
        with pytest.raises(InvalidInputError, match="control"):
            run.log_artifacts(root)
        with pytest.raises(InvalidInputError, match="no file"):
            run.log_artifact(root / "missing")
    assert shown(local, run.run_id) == {}


# Again.


def test_a_folder_put_again_sends_only_what_is_new(tmp_path: Path) -> None:
    files = {f"f{number}": bytes([number]) * 1000 for number in range(20)}
    root = tree(tmp_path / "in", files)
    lake, counting = far_lake("again/lake")
    with lake.start_run() as run:
        run.log_artifacts(root)
        counting.reset()
        (root / "f3").write_bytes(b"other content" * 10)
        (root / "f4").write_bytes(b"\xff" * 1000)  # of the same length
        (root / "new").write_bytes(b"new")
        run.log_artifacts(root)
        sent = [call.keys[0].rpartition("/")[2] for call in counting.calls if call.verb == "upload"]
        assert sorted(sent) == ["f3", "f4", "new"]
    assert shown(lake, run.run_id) == {name: said(data) for name, data in read_tree(root).items()}
    lake.close()


def test_bytes_that_came_after_their_event_are_not_taken_for_it(tmp_path: Path) -> None:
    root = tree(tmp_path / "in", {"f": b"first", "g": b"g"})
    with open_lake(tmp_path / "lake") as lake:
        with lake.start_run() as run:
            run.log_artifacts(root)
        (entry,) = (e for e in lake._storage.fs.list("artifacts/") if e.key.endswith("/f"))
        # An upload that died before it was logged has replaced it, two seconds later.
        lake._storage.fs.put(entry.key, b"OTHER")
        later_ns = (entry.time_us + 2_000_000) * 1000
        os.utime(lake._storage.fs.local_file(entry.key), ns=(later_ns, later_ns))
        lake.artifacts.upload(run.run_id, root / "f")
        with lake.start_run(run_id=run.run_id) as again:
            again.log_artifacts(root)
        assert content(lake, run.run_id, "f") == b"first"


def test_files_that_failed_do_not_take_the_others_along(tmp_path: Path) -> None:
    files = {f"f{number:02}": bytes([number]) * 100 for number in range(30)}
    root = tree(tmp_path / "in", files)
    faulty = FaultyFilesystem(LocalFilesystem(tmp_path / "lake"), seed=3)
    with testing.open_lake(faulty) as lake:
        run = lake.start_run()
        lake.flush()
        faulty.before = 0.3
        with pytest.raises(StorageError, match="made to fail"):
            run.log_artifacts(root)
        faulty.before = 0
        logged = shown(lake, run.run_id)
        there = {entry.key.rpartition("/")[2] for entry in faulty.inner.list("artifacts/")}
        assert set(logged) <= there
        run.log_artifacts(root)
        assert shown(lake, run.run_id) == {name: said(data) for name, data in files.items()}
        run.finish()


def test_a_file_written_to_all_the_time_is_refused(
    local: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "log.txt"
    file.write_text("x")
    whole = LocalFilesystem.upload
    tries = []

    def upload(self: LocalFilesystem, key: str, source: Path, **options: object) -> None:
        tries.append(key)
        from runlake.storage import source as sources  # noqa: PLC0415

        opened = sources.Source._take

        def take(self: sources.Source, count: int) -> bytes:
            data = opened(self, count)
            file.write_text("longer " * len(tries))
            return data

        with monkeypatch.context() as patch:
            patch.setattr(sources.Source, "_take", take)
            whole(self, key, source, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(LocalFilesystem, "upload", upload)
    with local.start_run() as run:
        with pytest.raises(StateError, match="written to while"):
            run.log_artifact(file)
        assert len(tries) == 3
    assert shown(local, run.run_id) == {}


# Fetch.


def test_a_wrong_digest_is_told_and_nothing_is_left(lake: Lake, tmp_path: Path) -> None:
    with lake.start_run() as run:
        run.log_text("as it was logged", "file.txt")
    (entry,) = (e for e in lake._storage.fs.list("artifacts/") if e.key.endswith("/file.txt"))
    lake._storage.fs.put(entry.key, b"not what was log")
    with pytest.raises(FormatError, match="not what was logged"):
        lake.artifacts.download(run.run_id, "file.txt", target=tmp_path / "out")
    assert list((tmp_path / "out").rglob("*")) == []


def test_an_interrupted_fetch_goes_on_where_it_was(tmp_path: Path) -> None:
    size = 5 * flow.PIECE_BYTES * 2
    file = tmp_path / "big.bin"
    file.write_bytes(noise(size, seed=1))
    counting = CountingFilesystem(MemoryFilesystem("resumed/lake"))
    faulty = FaultyFilesystem(counting, seed=1)
    with testing.open_lake(faulty) as lake:
        with lake.start_run() as run:
            run.log_artifact(file)
        lake.search_runs()
        whole = faulty.get_ranges

        def ranges(wanted: list[Range]) -> list[bytes]:
            if any(each.start == 2 * flow.PIECE_BYTES for each in wanted):
                raise StorageError("the line is cut")
            return whole(wanted)

        faulty.get_ranges = ranges  # type: ignore[method-assign,assignment]
        with pytest.raises(StorageError, match="cut"):
            lake.artifacts.download(run.run_id, "big.bin", target=tmp_path / "out")
        (half,) = (tmp_path / "out").iterdir()
        assert half.name.startswith(".tmp-")
        there = half.stat().st_size
        assert 0 < there < size
        faulty.get_ranges = whole  # type: ignore[method-assign]
        counting.reset()
        steps: list[Progress] = []
        found = lake.artifacts.download(
            run.run_id, "big.bin", target=tmp_path / "out", progress=steps.append
        )
        asked = [call for call in counting.calls if call.verb == "get_ranges"]
        fetched = sum(len([k for k in call.keys if k.endswith("big.bin")]) for call in asked)
        assert fetched == (size - there) // flow.PIECE_BYTES
        assert found.read_bytes() == file.read_bytes()
        assert steps[-1] == Progress(size, size, 1, 1)
        assert [each.name for each in (tmp_path / "out").iterdir()] == ["big.bin"]
        counting.reset()
        lake.artifacts.download(run.run_id, "big.bin", target=tmp_path / "out")
        assert not [call for call in counting.calls if call.verb == "get_ranges"]


def test_a_half_fetched_file_that_is_damaged_is_fetched_anew(tmp_path: Path) -> None:
    data = noise(3 * flow.PIECE_BYTES, seed=1)
    (tmp_path / "big.bin").write_bytes(data)
    lake, _ = far_lake("damaged/lake")
    with lake, lake.start_run() as run:
        run.log_artifact(tmp_path / "big.bin")
        target = tmp_path / "out" / "big.bin"
        target.parent.mkdir()
        wanted = fetching.Wanted("", target, len(data), hashlib.sha256(data).hexdigest())
        partial, handle = fetching._open(wanted)
        os.write(handle, b"z" * flow.PIECE_BYTES)
        os.close(handle)
        assert partial.exists()
        assert (
            lake.artifacts.download(run.run_id, "big.bin", target=tmp_path / "out").read_bytes()
            == data
        )
        assert not partial.exists()


def test_an_unknown_artifact_names_the_nearest(lake: Lake, run: Run) -> None:
    run.log_text("x", "model.pkl")
    for call in (lake.artifacts.open, lake.artifacts.download, lake.artifacts.delete):
        with pytest.raises(NotFoundError, match=r"model\.pkl"):
            call(run.run_id, "model.pk")


# Open.


DATA = noise(2_500_000, seed=5)


def opened_data() -> tuple[io.BufferedReader, CountingFilesystem]:
    """Open an object that lies far away."""
    counting = CountingFilesystem(MemoryFilesystem("opened"))
    counting.put("data.bin", DATA)
    counting.reset()
    return stream.open_stream(counting, "data.bin", size=len(DATA)), counting


@settings(max_examples=50)
@given(moves=st.lists(st.tuples(st.integers(0, 3_000_000), st.integers(0, 2_000_000)), max_size=12))
def test_an_open_artifact_reads_as_a_file_does(moves: list[tuple[int, int]]) -> None:
    opened, _ = opened_data()
    with opened:
        for place, count in moves:
            assert opened.seek(place) == place
            assert opened.read(count) == DATA[place : place + count]
            assert opened.tell() == place + len(DATA[place : place + count])


def test_reading_on_asks_for_more_each_time_and_a_jump_for_little() -> None:
    opened, counting = opened_data()
    with opened:
        assert opened.read(10) == DATA[:10]
        assert counting.requests["GET"] == 1
        while opened.read(10_000):
            pass
        assert counting.requests["GET"] <= 8
        counting.reset()
        opened.seek(-100, os.SEEK_END)
        assert opened.read() == DATA[-100:]
        opened.seek(5)
        assert opened.readline() == DATA[5:].split(b"\n")[0] + b"\n"
        assert counting.requests["GET"] <= 2
        with pytest.raises(ValueError, match="seek"):
            opened.seek(-3_000_000, os.SEEK_CUR)


def test_an_object_that_is_replaced_by_a_shorter_one_is_told() -> None:
    opened, counting = opened_data()
    with opened:
        opened.read(10)
        counting.put("data.bin", b"short")
        with pytest.raises(StorageError, match="shorter than it was"):
            opened.read()


# Delete.


def test_a_deleted_artifact_is_gone_from_every_answer(lake: Lake, run: Run) -> None:
    for name in ("keep.txt", "folder/a.txt", "folder/b/c.txt", "folderly.txt"):
        run.log_text(name, name)
    run_id = run.run_id
    assert lake.artifacts.delete(run_id, "folder") == ["folder/a.txt", "folder/b/c.txt"]
    assert set(shown(lake, run_id)) == {"keep.txt", "folderly.txt"}
    paths_left = lake.scan("artifacts").collect()["path"].to_list()
    assert {each for each in paths_left if not each.startswith("provenance/")} == {
        "keep.txt",
        "folderly.txt",
    }
    assert {each.path for each in lake.artifacts.list(run_id)} >= {"keep.txt", "folderly.txt"}
    assert lake.artifacts.list(run_id, "folder") == []
    with pytest.raises(NotFoundError):
        lake.artifacts.delete(run_id, "folder")
    run.log_text("again", "folder/a.txt")
    assert shown(lake, run_id)["folder/a.txt"] == said(b"again")


@final
class _Unwritable(Wrapper):
    """Takes nothing while it is closed."""

    is_closed = False

    def around(self, call: Call, action: Callable[[], T]) -> T:
        if self.is_closed and call.verb in {"put", "put_absent"}:
            raise StorageError("it is closed")
        return action()


@pytest.mark.filterwarnings("ignore::runlake.errors.RunlakeWarning")
def test_bytes_stay_where_the_event_of_their_end_cannot_be_written(tmp_path: Path) -> None:
    fs = _Unwritable(LocalFilesystem(tmp_path / "lake"))
    with testing.open_lake(fs) as lake:
        with lake.start_run() as run:
            run.log_text("x", "f.txt")
        lake.flush()
        fs.is_closed = True
        with pytest.raises(StorageError):
            lake.artifacts.delete(run.run_id, "f.txt")
        fs.is_closed = False
        assert content(lake, run.run_id, "f.txt") == b"x"


def test_a_read_only_lake_takes_and_deletes_nothing(tmp_path: Path) -> None:
    with open_lake(tmp_path / "lake") as lake, lake.start_run() as run:
        run.log_text("x", "f.txt")
    with open_lake(tmp_path / "lake", read_only=True) as lake:
        with pytest.raises(StateError):
            lake.artifacts.delete(run.run_id, "f.txt")
        with pytest.raises(StateError):
            lake.artifacts.upload(run.run_id, tree(tmp_path / "in", {"a": b"x"}))
        assert content(lake, run.run_id, "f.txt") == b"x"


def test_a_file_below_a_file_is_refused_before_anything_is_sent(
    lake: Lake, run: Run, tmp_path: Path
) -> None:
    run.log_text("file", "ff")
    run.log_text("inside", "folder/deep/x")
    local = tree(tmp_path / "f", {"below": b"1"})
    calls: list[Callable[[], None]] = [
        lambda: run.log_text("below", "ff/below"),
        lambda: run.log_dict({}, "folder"),
        lambda: run.log_text("as a file", "folder/deep"),
        lambda: run.log_artifact(local / "below", "ff/far"),
        lambda: run.log_artifacts(local, "ff"),
    ]
    for call in calls:
        with pytest.raises(InvalidInputError, match="no disk can hold both"):
            call()
    assert set(read_tree(lake.artifacts.download(run.run_id))) >= {"ff", "folder/deep/x"}
    lake.artifacts.delete(run.run_id, "ff")
    run.log_text("below", "ff/below")
    with lake.artifacts.open(run.run_id, "ff/below") as file:
        assert file.read() == b"below"


def test_a_file_and_one_below_it_from_two_processes_are_fetched_one_by_one(tmp_path: Path) -> None:
    lake, _ = far_lake("two/lake")
    with lake.start_run() as run:
        run.log_text("file", "ff")
    lake.artifacts.upload(run.run_id, tree(tmp_path / "f", {"x": b"x"}) / "x", artifact_path="ff")
    with pytest.raises(StateError, match=r"'ff' and a file 'ff/x'.*nothing was fetched"):
        lake.artifacts.download(run.run_id, target=tmp_path / "out")
    assert read_tree(tmp_path / "out") == {}
    fetched = lake.artifacts.download(run.run_id, "ff/x", target=tmp_path / "out")
    assert fetched.read_bytes() == b"x"
    with lake.artifacts.open(run.run_id, "ff") as file:
        assert file.read() == b"file"
    done = lake.copy_to(tmp_path / "disk")
    assert done.runs == 0
    assert "ff/x lies below the file" in done.problems[0]
    assert lake.copy_to("memory://two/other").problems == ()
    lake.artifacts.delete(run.run_id, "ff/x")
    assert lake.copy_to(tmp_path / "disk").problems == ()
    assert read_tree(tmp_path / "disk" / "artifacts")[f"0/{run.run_id}/ff"] == b"file"
    lake.close()
