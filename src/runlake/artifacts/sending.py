"""Files on their way into a lake: which they are, which need not go, and several at once.

A file is read once: its digest is made of the bytes as they are sent. A file that the lake has
already, logged for this path with the same size and digest, is only read; so a folder whose
upload was interrupted goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
import mimetypes
import os
import posixpath
import stat
import warnings
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias, final

from runlake import schema
from runlake.artifacts.paths import join
from runlake.artifacts.progress import Meter
from runlake.errors import InvalidInputError, RunlakeWarning, StorageError
from runlake.storage import later, layout
from runlake.storage.links import refuse_ways_out
from runlake.storage.source import FileChangedError, Watch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from runlake.artifacts.progress import Progress
    from runlake.storage.engine import Storage
    from runlake.storage.filesystem import Entry
    from runlake.storage.later import Mark

Row: TypeAlias = tuple[str, str, str, float | None, str | None]
Rows: TypeAlias = list[Row]
Place: TypeAlias = tuple[str, str]  # experiment_id, run_id

_TRIES: Final = 3
_MOST_THREADS: Final = 8
# A single file below this is sent at once: to ask what is there takes as long.
_WORTH_ASKING_BYTES: Final = 16 << 20
# Stores stamp whole seconds, and their clocks are not this host's.
_CLOCKS_US: Final = 1_000_000


class Item(NamedTuple):
    """One file to be sent.

    Attributes:
        file: the local one.
        path: below the run.
        size_bytes: when it was looked at.
    """

    file: Path
    path: str
    size_bytes: int


class Logged(NamedTuple):
    """What the lake says of an artifact.

    Attributes:
        size_bytes: its length.
        sha256: in hex; empty if nothing is said.
        at_us: when it was logged, microseconds since 1970, UTC.
    """

    size_bytes: int
    sha256: str
    at_us: int


def event(
    place: Place, path: str, *, size: int, sha256: str, about: Mapping[str, object] | None = None
) -> Row:
    """Return the event that says that a file is there.

    Args:
        place: experiment and run.
        path: below the run, checked.
        size: in bytes.
        sha256: in hex.
        about: further fields; `media_type` here stands in place of what the path's ending says.

    Returns:
        The row.
    """
    kind, _ = mimetypes.guess_type(path)
    said = {"sha256": sha256, "media_type": kind or "application/octet-stream", **(about or {})}
    text = json.dumps(said, separators=(",", ":"))
    return place[1], schema.ARTIFACT, path, float(size), text


def one_item(file: Path, folder: str | None) -> Item:
    """Return one file under its own name in a folder of a run.

    Raises:
        InvalidInputError: it is no file that can be read, or the path leaves the run.
    """
    return Item(file, join(folder, file.name), _size(file))


def items_below(root: Path, folder: str | None) -> list[Item]:
    """Return all files below a folder, sorted; links to files count, links to folders do not.

    Args:
        root: the local folder.
        folder: below the run; None is the run's own.

    Raises:
        InvalidInputError: something is no file that can be read, or a path leaves the run.
    """
    found, links = [], []
    for here, folders, files in os.walk(root, onerror=_refuse):
        links += [str(Path(here) / name) for name in folders if (Path(here) / name).is_symlink()]
        for name in files:
            file = Path(here) / name
            found.append(Item(file, join(folder, file.relative_to(root).as_posix()), _size(file)))
    if links:
        message = (
            f"links to folders are not followed, because they may lead in circles: "
            f"{', '.join(links[:3])}{' and others' if links[3:] else ''} not logged."
        )
        warnings.warn(message, RunlakeWarning, stacklevel=4)
    return sorted(found, key=lambda item: item.path)


@final
@dataclass(frozen=True, slots=True)
class Sender:
    """Sends files into one lake.

    Attributes:
        storage: of the lake.
        logged: tells what a run has logged, by path.
        threads: files on their way at once.
    """

    storage: Storage
    logged: Callable[[str], Mapping[str, Logged]]
    threads: int = _MOST_THREADS

    def send(
        self,
        place: Place,
        items: Sequence[Item],
        *,
        about: Mapping[str, object] | None = None,
        is_journaled: bool = False,
        progress: Callable[[Progress], None] | None = None,
    ) -> Iterator[Row]:
        """Send files, and yield the event of each when it is in the store.

        Of a file that fails, the others that are on their way arrive first.

        Args:
            place: experiment and run.
            items: the files.
            about: further fields of their events.
            is_journaled: the events go to a journal, where digests may be made later.
            progress: told how far it is.

        Yields:
            The events, in the order of the files; none of a file that was there already.

        Raises:
            InvalidInputError: a file cannot be read.
            FormatError: a link leads out of the run's folder where one would go.
            StateError: a file was written to meanwhile, again and again.
            StorageError: the store refused.
        """
        self.storage.ensure_lake()
        root = layout.artifacts(*place)
        folders = (posixpath.dirname(root + item.path) for item in items)
        refuse_ways_out(self.storage.fs, folders)
        there = {} if about else self._there(place, items)
        size = sum(item.size_bytes for item in items)
        meter = Meter("uploading", all_bytes=size, all_files=len(items), progress=progress)
        with meter:
            bring = self.storage.fs.place if is_journaled else self.storage.fs.upload
            job = _Job(bring, place, there, about or {}, meter)
            for row in _in_order(job.send, items, min(self.threads, _MOST_THREADS)):
                if row is not None:
                    yield row

    def _there(self, place: Place, items: Sequence[Item]) -> dict[str, Logged]:
        """Return what was logged of files that the store has, with the size that they have."""
        if not items or (len(items) == 1 and items[0].size_bytes < _WORTH_ASKING_BYTES):
            return {}
        root = layout.artifacts(*place)
        common = posixpath.commonpath([item.path.rpartition("/")[0] for item in items])
        prefix = items[0].path if len(items) == 1 else f"{common}/" if common else ""
        found = {entry.key[len(root) :]: entry for entry in self.storage.fs.list(root + prefix)}
        alike = [item for item in items if _is_alike(item, found.get(item.path))]
        if not alike:
            return {}
        logged = self.logged(place[1])
        return {
            item.path: said
            for item in alike
            if (said := logged.get(item.path)) is not None
            and said.size_bytes == item.size_bytes
            # Else another upload has replaced it, and died before it logged that.
            and found[item.path].time_us <= said.at_us + _CLOCKS_US
        }


@dataclass(frozen=True, slots=True)
class _Job:
    """The files of one call."""

    bring: Callable[..., Mark | None]
    place: Place
    there: Mapping[str, Logged]
    about: Mapping[str, object]
    meter: Meter

    def send(self, item: Item) -> Row | None:
        """Send one file; None if it is there."""
        said = self.there.get(item.path)
        try:
            if said is not None and said.sha256 and sha256_of(item.file) == said.sha256:
                self.meter.arrived(item.size_bytes)
                row = None
            else:
                row = self._upload(item)
        except StorageError:
            raise
        except OSError as error:
            raise InvalidInputError(f"{str(item.file)!r} cannot be read: {error}") from error
        self.meter.finished()
        return row

    def _upload(self, item: Item) -> Row:
        watch = Watch(self.meter.arrived)
        mark = self._bring(item, watch)
        if mark is not None:
            about = {**self.about, **later.marked(mark)}
            return event(self.place, item.path, size=mark.size_bytes, sha256="", about=about)
        size, sha256 = watch.size_bytes, watch.sha256
        return event(self.place, item.path, size=size, sha256=sha256, about=self.about)

    def _bring(self, item: Item, watch: Watch) -> Mark | None:
        """Bring a file into the store; again, if it is written to meanwhile."""
        key = layout.artifacts(*self.place) + item.path
        for _ in range(_TRIES - 1):
            with suppress(FileChangedError):
                return self.bring(key, item.file, watch=watch)
        return self.bring(key, item.file, watch=watch)


def sha256_of(file: Path) -> str:
    """Return the SHA-256 of a local file, in hex.

    Raises:
        OSError: it cannot be read.
    """
    with file.open("rb", buffering=0) as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _in_order(
    send: Callable[[Item], Row | None], items: Sequence[Item], threads: int
) -> Iterator[Row | None]:
    """Send several at once; yield what became of each, in order."""
    if len(items) == 1 or threads <= 1:
        yield from map(send, items)
        return
    under_way: deque[Future[Row | None]] = deque()
    failure: BaseException | None = None
    with ThreadPoolExecutor(threads, thread_name_prefix="runlake-upload") as pool:
        waiting = iter(items)
        while True:
            while failure is None and len(under_way) < 2 * threads:
                item = next(waiting, None)
                if item is None:
                    break
                under_way.append(_submit(pool, send, item))
            if not under_way:
                break
            done = under_way.popleft()
            if (error := done.exception()) is None:
                yield done.result()
            failure = failure or error  # raised when the others have arrived
    if failure is not None:
        raise failure


def _submit(
    pool: ThreadPoolExecutor, send: Callable[[Item], Row | None], item: Item
) -> Future[Row | None]:
    try:
        return pool.submit(send, item)
    except RuntimeError:  # the interpreter exits, and takes no more threads
        done: Future[Row | None] = Future()
        done.set_result(send(item))
        return done


def _is_alike(item: Item, entry: Entry | None) -> bool:
    return entry is not None and entry.size_bytes == item.size_bytes


def _size(file: Path) -> int:
    """Return the length of a regular file, or of the one that a link leads to."""
    try:
        facts = file.stat()
    except OSError as error:
        what = "a link that leads nowhere" if file.is_symlink() else f"not readable: {error}"
        raise InvalidInputError(f"{str(file)!r} is {what}; it cannot be an artifact.") from error
    if not stat.S_ISREG(facts.st_mode):
        message = f"{str(file)!r} is no regular file; it cannot be an artifact."
        raise InvalidInputError(message)
    return facts.st_size


def _refuse(error: OSError) -> None:
    raise InvalidInputError(f"a folder cannot be read: {error}") from error
