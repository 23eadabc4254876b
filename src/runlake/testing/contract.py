"""`StorageContract`: what every filesystem under a lake must do, as tests to inherit.

```python
class TestMyFilesystem(StorageContract):
    @pytest.fixture
    def filesystem(self): ...  # on an empty root

    @pytest.fixture
    def another(self): ...  # a second client of the same root
```
"""
# ruff: noqa: S101 - these are tests, and a class is how pytest inherits them

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Final

from runlake.errors import InvalidInputError, StateError
from runlake.storage.fs import Range
from runlake.storage.source import Watch

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from runlake.storage.fs import Filesystem
    from runlake.storage.source import Data

_THREADS: Final = 8
_ROUNDS: Final = 10
_LARGE: Final = 300_000
_CLOCK_ERROR_US: Final = 5_000_000
_YEAR_2020_US: Final = 1_577_836_800_000_000
_ODD_KEYS: Final = (
    "artifacts/0/run/with space.txt",
    "artifacts/0/run/a=b&c+d;e,f.txt",
    "artifacts/0/run/100%25 %zz.txt",
    "artifacts/0/run/päth/ключ/鍵.txt",
    "artifacts/0/run/[x]{y}(z)!'~@$*.txt",
    "artifacts/0/run/#hash.txt",
    "artifacts/0/run/what?version=1.txt",
    'artifacts/0/run/"quoted" <tag>.txt',
    "artifacts/0/run/ends with dot.",
    "artifacts/0/run/.hidden",
    "artifacts/0/run/" + "n" * 200,
)


def _raises(expected: type[Exception], call: Callable[[], object]) -> None:
    try:
        call()
    except expected:
        return
    message = f"{expected.__name__} was not raised"
    raise AssertionError(message)


class StorageContract:
    """Inherit, and provide the fixtures `filesystem` and `another`.

    Attributes:
        more_than_a_page: more keys than a listing gives at once; stores give 1,000.
    """

    more_than_a_page: int = 1003

    def test_get_returns_what_put_wrote(self, filesystem: Filesystem) -> None:
        """The plainest promise, for small and larger objects."""
        for data in (b"x", bytes(range(256)) * 5000):
            filesystem.put("log/a", data)
            assert filesystem.get("log/a") == data

    def test_put_replaces_what_is_there(self, filesystem: Filesystem) -> None:
        """The object is the new one, no longer and no shorter."""
        filesystem.put("a", b"a longer first object")
        filesystem.put("a", b"second")
        assert filesystem.get("a") == b"second"

    def test_get_of_a_missing_key_is_file_not_found(self, filesystem: Filesystem) -> None:
        """A missing key is the only thing that an error tells."""
        filesystem.put("there", b"x")
        _raises(FileNotFoundError, lambda: filesystem.get("missing"))
        _raises(FileNotFoundError, lambda: filesystem.get("there/below"))
        ranges = [Range("there", 0, 1), Range("missing", 0, 1)]
        _raises(FileNotFoundError, lambda: filesystem.get_ranges(ranges))

    def test_get_of_a_folder_is_file_not_found(self, filesystem: Filesystem) -> None:
        """A part of a key is no key."""
        filesystem.put("folder/a", b"x")
        _raises(FileNotFoundError, lambda: filesystem.get("folder"))

    def test_list_of_nothing_is_empty(self, filesystem: Filesystem) -> None:
        """Also where the root does not exist yet."""
        assert filesystem.list("") == []
        assert filesystem.list("log/") == []

    def test_list_shows_every_object_after_its_write(self, filesystem: Filesystem) -> None:
        """Keys, sizes, order, recursion; prefixes may end inside a name."""
        sizes = {"log/b/2": 5, "log/b/10": 1, "log/a": 2, "logs": 3, "manifests/1": 4}
        for key, size in sizes.items():
            filesystem.put(key, b"x" * size)
        assert {e.key: e.size_bytes for e in filesystem.list("")} == sizes
        assert [e.key for e in filesystem.list("")] == sorted(sizes)
        assert [e.key for e in filesystem.list("log/")] == ["log/a", "log/b/10", "log/b/2"]
        assert [e.key for e in filesystem.list("log/b/1")] == ["log/b/10"]
        assert [e.key for e in filesystem.list("log")] == ["log/a", "log/b/10", "log/b/2", "logs"]
        assert filesystem.list("log/c/") == []

    def test_list_returns_more_than_one_page(
        self, filesystem: Filesystem, another: Filesystem
    ) -> None:
        """All pages count, and are in order."""
        keys = [f"log/{number:05d}" for number in range(self.more_than_a_page)]
        with ThreadPoolExecutor(_THREADS) as pool:
            list(pool.map(lambda key: filesystem.put(key, b"x"), keys))
        assert [entry.key for entry in another.list("log/")] == keys
        filesystem.delete_many(keys)
        assert another.list("log/") == []

    def test_list_is_never_stale(self, filesystem: Filesystem, another: Filesystem) -> None:
        """What another client writes or deletes shows at once."""
        assert filesystem.list("log/") == []
        _raises(FileNotFoundError, lambda: filesystem.get("log/a"))
        another.put("log/a", b"1")
        assert [entry.key for entry in filesystem.list("log/")] == ["log/a"]
        assert filesystem.get("log/a") == b"1"
        another.put("log/a", b"22")
        another.put("log/b", b"1")
        assert [entry.size_bytes for entry in filesystem.list("log/")] == [2, 1]
        another.delete_many(["log/a"])
        assert [entry.key for entry in filesystem.list("log/")] == ["log/b"]

    def test_time_of_an_object_is_by_the_stores_clock(self, filesystem: Filesystem) -> None:
        """Far stores give whole seconds, and caches of their clock drift a little."""
        filesystem.put("a", b"x")
        entry = filesystem.list("")[0]
        assert abs(filesystem.now_us() - entry.time_us) < _CLOCK_ERROR_US
        assert entry.time_us > _YEAR_2020_US

    def test_get_ranges_returns_each_range_in_order(self, filesystem: Filesystem) -> None:
        """Ends are not included, and what lies behind the end of an object is left out."""
        data = bytes(range(250)) * (_LARGE // 250)
        filesystem.put("a", data)
        filesystem.put("b", b"0123456789")
        wanted = [
            Range("b", 2, 5),
            Range("a", 0, _LARGE),
            Range("b", 0, 1),
            Range("a", 1000, 1017),
            Range("b", 8, 99),
            Range("b", 10, 20),
            Range("b", 4, 4),
        ]
        found = filesystem.get_ranges(wanted)
        assert found[:4] == [b"234", data, b"0", data[1000:1017]]
        assert found[4:] == [b"89", b"", b""]
        assert filesystem.get_ranges([]) == []

    def test_get_ranges_returns_hundreds_at_once(self, filesystem: Filesystem) -> None:
        """More than requests may be under way."""
        filesystem.put("a", bytes(range(250)))
        wanted = [Range("a", at, at + 2) for at in range(240)]
        assert filesystem.get_ranges(wanted) == [bytes([at, at + 1]) for at in range(240)]

    def test_put_absent_creates_once(self, filesystem: Filesystem) -> None:
        """The second is refused and changes nothing; the same bytes again are ours."""
        assert filesystem.put_absent("a", b"mine")
        assert not filesystem.put_absent("a", b"theirs")
        assert filesystem.put_absent("a", b"mine")
        assert filesystem.get("a") == b"mine"

    def test_put_absent_has_one_winner_of_many_threads(
        self, filesystem: Filesystem, another: Filesystem
    ) -> None:
        """And what is there afterwards is the winner's."""
        with ThreadPoolExecutor(_THREADS) as pool:
            for number in range(_ROUNDS):
                key = f"manifests/{number}"
                clients = [filesystem, another] * (_THREADS // 2)
                payloads = [f"{number}-{who}".encode() for who in range(_THREADS)]
                won = list(pool.map(lambda c, p, key=key: c.put_absent(key, p), clients, payloads))
                assert sum(won) == 1
                assert filesystem.get(key) == payloads[won.index(True)]

    def test_readers_never_see_a_part(self, filesystem: Filesystem, another: Filesystem) -> None:
        """An object is whole or not there, while it is created and while it is replaced."""
        whole = {bytes([fill]) * _LARGE for fill in range(4)}

        def write(fill: int) -> None:
            data = bytes([fill]) * _LARGE
            for number in range(_ROUNDS):
                filesystem.put("same", data)
                filesystem.put_absent(f"new/{fill}-{number}", data)

        with ThreadPoolExecutor(4) as pool:
            writers = [pool.submit(write, fill) for fill in range(4)]
            seen = 0
            while not all(writer.done() for writer in writers):
                for entry in another.list(""):
                    assert entry.size_bytes == _LARGE
                    seen += another.get(entry.key) in whole
                    assert another.get(entry.key) in whole
        for writer in writers:
            writer.result()
        assert seen
        assert len(another.list("new/")) == 4 * _ROUNDS

    def test_delete_many_forgives_missing_keys(self, filesystem: Filesystem) -> None:
        """All others are gone."""
        for key in ("a", "b/c", "b/d"):
            filesystem.put(key, b"x")
        filesystem.delete_many(["a", "missing", "b/c", "b/missing", "missing/too"])
        assert [entry.key for entry in filesystem.list("")] == ["b/d"]
        filesystem.delete_many([])
        filesystem.delete_many(["missing"])

    def test_copy_leaves_the_source(self, filesystem: Filesystem) -> None:
        """A missing source is told."""
        filesystem.put("a", b"data")
        filesystem.copy("a", "b/c")
        assert filesystem.get("b/c") == filesystem.get("a") == b"data"
        _raises(FileNotFoundError, lambda: filesystem.copy("missing", "d"))
        assert [entry.key for entry in filesystem.list("")] == ["a", "b/c"]

    def test_upload_and_download_keep_the_bytes(
        self, filesystem: Filesystem, tmp_path: Path
    ) -> None:
        """Also of an empty file, which only an artifact may be."""
        for data in (b"", b"x", bytes(range(256)) * 40_000):
            (tmp_path / "up").write_bytes(data)
            filesystem.upload("artifacts/0/r/f", tmp_path / "up")
            filesystem.download("artifacts/0/r/f", tmp_path / "new" / "down")
            assert (tmp_path / "new" / "down").read_bytes() == data
            assert filesystem.get("artifacts/0/r/f") == data
        assert [file.name for file in (tmp_path / "new").iterdir()] == ["down"]

    def test_upload_tells_what_it_has_read_and_what_has_arrived(
        self, filesystem: Filesystem, tmp_path: Path
    ) -> None:
        """The digest is that of the file, and every byte arrives once."""
        for data in (b"", b"x", bytes(range(256)) * 10_000):
            (tmp_path / "up").write_bytes(data)
            arrived: list[int] = []
            watch = Watch(arrived.append)
            filesystem.upload("artifacts/0/r/f", tmp_path / "up", watch=watch)
            assert watch.sha256 == hashlib.sha256(data).hexdigest()
            assert (watch.size_bytes, sum(arrived)) == (len(data), len(data))
        assert filesystem.leftovers() == []

    def test_upload_of_a_file_that_changes_writes_nothing(
        self, filesystem: Filesystem, tmp_path: Path
    ) -> None:
        """What is there stays; a mixture of two files would be neither."""
        file = tmp_path / "up"
        file.write_bytes(b"x" * _LARGE)
        filesystem.put("artifacts/0/r/f", b"before")

        class Meddling(Watch):
            def read(self, data: Data) -> None:
                file.write_bytes(b"y" * (_LARGE + 1))
                super().read(data)

        def upload() -> None:
            filesystem.upload("artifacts/0/r/f", file, watch=Meddling())

        _raises(StateError, upload)
        assert filesystem.get("artifacts/0/r/f") == b"before"
        assert [entry.key for entry in filesystem.list("")] == ["artifacts/0/r/f"]

    def test_download_of_a_missing_key_leaves_no_file(
        self, filesystem: Filesystem, tmp_path: Path
    ) -> None:
        """Nor a half one under another name."""
        target = tmp_path / "down"
        _raises(FileNotFoundError, lambda: filesystem.download("missing", target / "file"))
        assert not target.exists() or not list(target.iterdir())

    def test_probe_finds_conditional_create(self, filesystem: Filesystem) -> None:
        """It remembers, and leaves nothing behind."""
        before = filesystem.conditional_create
        assert before is None
        assert filesystem.probe()
        assert filesystem.conditional_create
        assert filesystem.list("") == []

    def test_odd_keys_are_kept(self, filesystem: Filesystem) -> None:
        """What users name their files must not matter."""
        for key in _ODD_KEYS:
            assert filesystem.put_absent(key, key.encode())
        assert [entry.key for entry in filesystem.list("artifacts/")] == sorted(_ODD_KEYS)
        found = filesystem.get_ranges([Range(key, 0, 999) for key in _ODD_KEYS])
        assert found == [key.encode() for key in _ODD_KEYS]
        filesystem.copy(_ODD_KEYS[1], _ODD_KEYS[2])
        assert filesystem.get(_ODD_KEYS[2]) == _ODD_KEYS[1].encode()
        filesystem.delete_many(_ODD_KEYS)
        assert filesystem.list("") == []

    def test_keys_that_leave_the_lake_are_refused(self, filesystem: Filesystem) -> None:
        """Before anything is asked or written."""
        for key in ("", "/a", "a//b", "a/", "../a", "a/../../b", "a/./b", "a\0b", "a\nb", "a\\b"):
            _raises(InvalidInputError, partial(filesystem.put, key, b"x"))
            _raises(InvalidInputError, partial(filesystem.get, key))
        for prefix in ("/", "../", "a/../", "a//"):
            _raises(InvalidInputError, partial(filesystem.list, prefix))

    def test_empty_objects_are_refused(self, filesystem: Filesystem) -> None:
        """They could not be told from broken ones."""
        _raises(InvalidInputError, lambda: filesystem.put("a", b""))
        _raises(InvalidInputError, lambda: filesystem.put_absent("a", b""))
        assert filesystem.list("") == []
