"""Put, list, open, fetch and delete the files of runs.

An artifact lies under `artifacts/<experiment>/<run>/<path>` as it is, and an event in the log
says its size, type and SHA-256. These calls wait for the store: when one returns, the file is
there whole. Where its event goes to a journal, the digest may come behind that, see
`runlake.storage.later`.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, NamedTuple, TypeAlias

from runlake import arguments, schema
from runlake.artifacts import documents, fetching, stream
from runlake.artifacts.fetching import Wanted
from runlake.artifacts.paths import check_folder, check_path, is_below, join, local_target
from runlake.artifacts.progress import Meter
from runlake.artifacts.replacement import Replacement
from runlake.artifacts.sending import Item, Sender, event, items_below, one_item
from runlake.artifacts.shape import Shape, refuse_both
from runlake.errors import FormatError, InvalidInputError, NotFoundError, StateError
from runlake.storage import layout
from runlake.storage.flow import ReplacedError
from runlake.storage.links import refuse_ways_out

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from runlake.artifacts.progress import Progress
    from runlake.artifacts.replacement import Heard
    from runlake.artifacts.sending import Logged, Place, Row, Rows
    from runlake.storage.engine import Storage
    from runlake.storage.filesystem import Entries, Filesystem

Names: TypeAlias = list[str]
_SMALL_BYTES: Final = 4 << 20
_MOST_THREADS: Final = 8
# So often a file that is replaced while it is fetched is fetched anew.
_TRIES: Final = 4


class Ledger(NamedTuple):
    """What the lake knows of artifacts, and how it is told more.

    Attributes:
        logged: tells what a run has logged, by path, without what was deleted since.
        write: logs rows of a run of an experiment, which may have ended; they are in the store
            when it returns.
        note: the same; they are in the journal when it returns.
        check: raises where the lake takes nothing, or not under these ids of an
            experiment and a run.
        hear: reads the log anew: what it says of a path of a run.
    """

    logged: Callable[[str], Mapping[str, Logged]]
    write: Callable[[str, Rows], None]
    note: Callable[[str, Rows], None]
    check: Callable[[str, str], None]
    hear: Callable[[str, str], Heard]


@dataclass(frozen=True, slots=True)
class FileInfo:
    """One artifact in a listing, with MLflow's names.

    Attributes:
        path: below the run.
        is_dir: a folder, whose own files are not listed with it.
        file_size: bytes; None for a folder.
    """

    path: str
    is_dir: bool
    file_size: int | None


class Artifacts:
    """The files of all runs of one lake; any thread may ask."""

    def __init__(
        self,
        storage: Storage,
        locate: Callable[[str], str],
        *,
        ledger: Ledger | None = None,
        parallel: int = _MOST_THREADS,
        shape: Shape | None = None,
    ) -> None:
        """Nothing is read before it is asked for.

        Args:
            storage: of the lake.
            locate: tells a run's experiment, or raises NotFoundError.
            ledger: of the lake; None: nothing is known, and nothing can be deleted.
            parallel: greatest number of files on their way at once.
            shape: what was put into the one run that this is for; None where it is for all.
        """
        self._storage = storage
        self._shape = shape or Shape(storage.fs)
        self._locate = locate
        self._ledger = ledger
        self._threads = max(1, min(parallel, _MOST_THREADS))
        self._sender = Sender(storage, self._logged, self._threads)

    def uri(self, experiment_id: str, run_id: str) -> str:
        """Return the URL of a run's folder."""
        return f"{self._storage.fs.url}/{layout.artifacts(experiment_id, run_id)}".rstrip("/")

    def of(self, experiment_id: str) -> Artifacts:
        """Return the same, of runs that are known to be in one experiment: none is looked up.

        Args:
            experiment_id: theirs.
        """
        return Artifacts(
            self._storage, lambda _: experiment_id, ledger=self._ledger, parallel=self._threads
        )

    def of_open_run(self) -> Artifacts:
        """Return the same, for one run that this process writes: it knows what it has put."""
        shape = Shape(self._storage.fs, remembers=True)
        return Artifacts(
            self._storage, self._locate, ledger=self._ledger, parallel=self._threads, shape=shape
        )

    # For runs that are open.

    def put(
        self,
        place: Place,
        local: str | os.PathLike[str],
        *,
        folder: str | None,
        is_journaled: bool = False,
        progress: Callable[[Progress], None] | None = None,
    ) -> Iterator[Row]:
        """Upload a file, or a folder under its own name; yield an event for each file.

        Args:
            place: experiment and run.
            local: the file or folder.
            folder: below the run; None is the run's own.
            is_journaled: the events go to a journal, where digests may be made later.
            progress: told how far it is; None shows that in a terminal.

        Yields:
            The event of each file, once it is in the store; none of a file that was there
            already.

        Raises:
            InvalidInputError: there is no such file, or the path leaves the run.
            StateError: the file was written to meanwhile, again and again.
            StorageError: the store refused.
        """
        source = Path(arguments.path("local_path", local))
        if source.is_dir():
            name = join(folder, source.resolve().name)
            yield from self.put_all(
                place, source, folder=name, is_journaled=is_journaled, progress=progress
            )
            return
        if not os.path.lexists(source):
            message = f"no file {str(local)!r} to log as an artifact."
            raise InvalidInputError(message)
        items = [one_item(source, folder)]
        self._shape.take(place, [items[0].path])
        yield from self._sender.send(place, items, is_journaled=is_journaled, progress=progress)

    def put_all(
        self,
        place: Place,
        local: str | os.PathLike[str],
        *,
        folder: str | None,
        is_journaled: bool = False,
        progress: Callable[[Progress], None] | None = None,
    ) -> Iterator[Row]:
        """Upload all files below a folder, several at once; yield an event for each.

        Links to files are followed, links to folders are not: they may lead in circles. Every
        name is checked before the first file goes.

        Args:
            place: experiment and run.
            local: the folder.
            folder: below the run; None is the run's own.
            is_journaled: the events go to a journal, where digests may be made later.
            progress: told how far it is; None shows that in a terminal.

        Yields:
            The event of each file, once it is in the store; none of a file that was there
            already.

        Raises:
            InvalidInputError: there is no such folder, something in it is no file that can be
                read, or a path leaves the run.
            StateError: a file was written to meanwhile, again and again.
            StorageError: the store refused.
        """
        root = Path(arguments.path("local_dir", local))
        if not root.is_dir():
            message = f"no folder {str(local)!r} to log as artifacts."
            raise InvalidInputError(message)
        items = items_below(root, folder)
        if items:
            self._shape.take(place, [item.path for item in items])
            yield from self._sender.send(place, items, is_journaled=is_journaled, progress=progress)

    def put_bytes(
        self, place: Place, path: str, *, data: bytes, about: Mapping[str, object] | None = None
    ) -> Row:
        """Write one artifact from memory; return its event.

        Args:
            place: experiment and run.
            path: below the run.
            data: the content; may be empty.
            about: further fields for the event, as JSON; `media_type` here stands in place of
                what the path's ending says.

        Returns:
            The event that says so.

        Raises:
            InvalidInputError: the path leaves the run.
            FormatError: a link leads out of the run's folder there.
            StorageError: the store refused.
        """
        path = check_path(path)
        key = layout.artifacts(*place) + path
        self._storage.ensure_lake()
        self._shape.take(place, [path])
        refuse_ways_out(self._storage.fs, [posixpath.dirname(key)])
        if data:
            self._storage.fs.put(key, data)
        else:
            with tempfile.NamedTemporaryFile() as empty:
                self._storage.fs.upload(key, Path(empty.name))
        digest = hashlib.sha256(data).hexdigest()
        return event(place, path, size=len(data), sha256=digest, about=about)

    def put_file(self, place: Place, path: str, *, file: Path, about: Mapping[str, object]) -> Row:
        """Stream one local file to a path of its own; return its event.

        Args:
            place: experiment and run.
            path: below the run.
            file: the local file.
            about: further fields for the event, at least one.

        Returns:
            The event that says so.

        Raises:
            InvalidInputError: the file cannot be read, or the path leaves the run.
            StorageError: the store refused, or the file was written to meanwhile.
        """
        path = check_path(path)
        try:
            item = Item(file, path, file.stat().st_size)
        except OSError as error:
            raise InvalidInputError(f"{str(file)!r} cannot be read: {error}") from error
        self._shape.take(place, [path])
        return next(self._sender.send(place, [item], about=about))

    def send(self, place: Place, items: Sequence[Item]) -> Iterator[Row]:
        """Upload local files to paths of their own, several at once; yield an event for each.

        Args:
            place: experiment and run.
            items: the files.

        Yields:
            The event of each file, once it is in the store; none of a file that was there
            already.

        Raises:
            InvalidInputError: a file cannot be read.
            StorageError: the store refused, or a file was written to meanwhile.
        """
        yield from self._sender.send(place, items, progress=lambda _: None)

    def put_dict(self, place: Place, path: str, *, value: Mapping[str, Any] | list[Any]) -> Row:
        """Write a mapping or list as YAML or JSON, as the path's ending says; return its event.

        Args:
            place: experiment and run.
            path: below the run.
            value: what JSON or YAML can hold.

        Returns:
            The event that says so.

        Raises:
            InvalidInputError: the value cannot be written so.
            MissingDependencyError: YAML is asked for and PyYAML is not installed.
        """
        path = check_path(path)
        try:
            if path.endswith((".yaml", ".yml")):
                data = documents.to_yaml(value)
            else:
                data = documents.to_json(value)
        except (TypeError, ValueError, RecursionError) as error:
            message = f"the value for {path!r} cannot be written: {error}"
            raise InvalidInputError(message) from error
        return self.put_bytes(place, path, data=data)

    # For runs by their ids.

    def upload(
        self,
        run_id: str,
        local: str | os.PathLike[str],
        *,
        artifact_path: str | None = None,
        progress: Callable[[Progress], None] | None = None,
    ) -> None:
        """Add a file, or a folder under its own name, to a run that may have ended.

        Args:
            run_id: the run.
            local: the file or folder.
            artifact_path: folder below the run to put it in; None is the run's own.
            progress: called with how far it is; None shows that in a terminal.

        Raises:
            NotFoundError: there is no such run.
            InvalidInputError: there is no such file, or the path leaves the run.
            StateError: the lake is read-only, or a file was written to meanwhile, again and again.
            StorageError: the store refused.
        """
        place = self._locate(run_id), run_id
        ledger = self._writable(place)
        rows: Rows = []
        try:
            rows.extend(self.put(place, local, folder=artifact_path, progress=progress))
        finally:
            if rows:
                ledger.write(place[0], rows)

    def add(
        self,
        run_id: str,
        local: str | os.PathLike[str],
        *,
        artifact_path: str | None = None,
        is_content: bool = False,
        progress: Callable[[Progress], None] | None = None,
    ) -> None:
        """Add like `upload`; the files are in the store when it returns, what is said of them soon.

        Args:
            run_id: the run; it may have ended.
            local: the file or folder.
            artifact_path: folder below the run to put it in; None is the run's own.
            is_content: of a folder only what is in it; its own name is left out.
            progress: called with how far it is; None shows that in a terminal.

        Raises:
            NotFoundError: there is no such run.
            InvalidInputError: there is no such file or folder, or the path leaves the run.
            StateError: the lake is read-only, or a file was written to meanwhile, again and again.
            StorageError: the store refused.
        """
        place = self._locate(run_id), run_id
        ledger = self._writable(place)
        put = self.put_all if is_content else self.put
        for row in put(place, local, folder=artifact_path, is_journaled=True, progress=progress):
            ledger.note(place[0], [row])

    def list(self, run_id: str, path: str = "") -> list[FileInfo]:
        """List the files and folders directly below a folder of a run, by path.

        Args:
            run_id: the run.
            path: a folder below the run; empty is the run's own.

        Returns:
            One entry each, sorted by path; empty if there is nothing.

        Raises:
            NotFoundError: there is no such run.
            StorageError: the store refused.
        """
        root = layout.artifacts(self._locate(run_id), run_id)
        path = check_folder(path)
        prefix = f"{root}{path}/" if path else root
        refuse_ways_out(self._storage.fs, [prefix])
        found: dict[str, FileInfo] = {}
        for entry in self._storage.fs.list(prefix):
            first, slash, _ = entry.key.removeprefix(prefix).partition("/")
            inside = f"{path}/{first}" if path else first
            size = None if slash else entry.size_bytes
            found[inside] = FileInfo(inside, bool(slash), size)
        return [found[name] for name in sorted(found)]

    def open(self, run_id: str, path: str) -> BinaryIO:
        """Open one artifact for reading; only what is read is fetched.

        Its digest is not checked, because that takes the whole file; `download` does.

        Args:
            run_id: the run.
            path: a file below the run.

        Returns:
            A binary stream that can be read from any place. It fetches ahead of whoever reads
            on, and holds at most 16 MiB and what is asked for at once.

        Raises:
            NotFoundError: there is no such run, or it has no such artifact.
            StorageError: the store refused.
        """
        path = check_path(path)
        root, entries = self._entries(run_id, path)
        entry = next((each for each in entries if each.key == root + path), None)
        if entry is None:
            raise self._missing(run_id, path)
        if self._storage.fs.is_local:
            return self._storage.fs.local_file(entry.key).open("rb")
        return stream.open_stream(self._storage.fs, entry.key, size=entry.size_bytes)

    def download(
        self,
        run_id: str,
        path: str = "",
        *,
        target: str | os.PathLike[str] | None = None,
        progress: Callable[[Progress], None] | None = None,
    ) -> Path:
        """Fetch one artifact, or a folder of them, and check their digests.

        A file that is there already with the right digest is not fetched, and what an
        interrupted call has left is gone on with.

        Args:
            run_id: the run.
            path: a file or folder below the run; empty means everything.
            target: the local folder to put it in; None makes a temporary one.
            progress: called with how far it is; None shows that in a terminal.

        Returns:
            Where the file or folder now lies.

        Raises:
            NotFoundError: there is no such run, or it has no such artifact.
            FormatError: a file is not what was logged; it is not kept.
            StateError: it has a file and others below the same path; nothing was fetched.
            StorageError: the store refused.
        """
        path = check_folder(path)
        below = None if target is None else arguments.path("target", target)
        folder = Path(below or tempfile.mkdtemp(prefix="runlake-"))
        self.download_as(run_id, path, target=folder / path, progress=progress)
        return folder / path

    def download_as(
        self,
        run_id: str,
        path: str = "",
        *,
        target: str | os.PathLike[str],
        but: str | None = None,
        progress: Callable[[Progress], None] | None = None,
    ) -> None:
        """Fetch one artifact, or a folder of them, under a name of the caller's own.

        As `download` in all else.

        Args:
            run_id: the run.
            path: a file or folder below the run; empty means everything.
            target: what the file or folder becomes on the local disk.
            but: a folder of the run that is left out.
            progress: called with how far it is; None shows that in a terminal.

        Raises:
            NotFoundError: there is no such run, or it has no such artifact.
            FormatError: a file is not what was logged; it is not kept.
            StateError: it has a file and others below the same path; nothing was fetched.
            StorageError: the store refused.
        """
        path = check_folder(path)
        root, entries = self._entries(run_id, path)
        if not entries:
            raise self._missing(run_id, path)
        url, place = self._storage.url, Path(target)
        logged = self._logged(run_id)
        wanted = []
        for entry in entries:
            inside = entry.key[len(root) :]
            if but and is_below(inside, but):
                continue
            said = logged.get(inside)
            digest = "" if said is None else said.sha256
            rest = inside[len(path) :].lstrip("/")
            file = local_target(place, rest, url=url) if rest else place
            wanted.append(Wanted(entry.key, file, entry.size_bytes, digest, entry.time_us))
        refuse_both(run_id, [each.key[len(root) :] for each in wanted], url=url)
        self._fetch(wanted, self._replacement(run_id, root), progress)

    def local_file(self, run_id: str, path: str) -> Path | None:
        """Return the file that an artifact is, where the lake lies on this machine's disk.

        Only for reading: whoever changes it damages the lake. Its digest is not checked.

        Args:
            run_id: the run.
            path: a file below the run.

        Returns:
            The file; None where the lake is no folder.

        Raises:
            NotFoundError: there is no such run, or it has no such artifact.
        """
        if not self._storage.fs.is_local:
            return None
        path = check_path(path)
        key = layout.artifacts(self._locate(run_id), run_id) + path
        refuse_ways_out(self._storage.fs, [key])
        file = self._storage.fs.local_file(key)
        if not file.is_file():
            raise self._missing(run_id, path)
        return file

    def delete(self, run_id: str, path: str) -> Names:
        """Delete an artifact, or a folder of them, for ever.

        First an event says so, then the bytes go. Whoever asks the view `artifacts` after this
        does not find it; a copy in another lake, and another run with the same file, have their
        own.

        Args:
            run_id: the run; it may have ended.
            path: a file or folder below the run.

        Returns:
            The paths of the files that are gone.

        Raises:
            NotFoundError: there is no such run, or it has no such artifact.
            StateError: the lake is read-only.
            StorageError: the store refused.
        """
        ledger, path = self._writable((self._locate(run_id), run_id)), check_path(path)
        root, entries = self._entries(run_id, path)
        there = {entry.key[len(root) :] for entry in entries}
        gone = sorted(there | {each for each in self._logged(run_id) if is_below(each, path)})
        if not gone:
            raise self._missing(run_id, path)
        rows: Rows = [(run_id, schema.ARTIFACT, each, None, None) for each in gone]
        ledger.write(root.split("/")[1], rows)
        self._storage.fs.delete_many(root + each for each in sorted(there))
        return gone

    # Inside.

    def _entries(self, run_id: str, path: str) -> tuple[str, Entries]:
        """Return the prefix of a run, and what the store has of a file or folder of it."""
        root = layout.artifacts(self._locate(run_id), run_id)
        found = self._storage.fs.list(root + path)
        entries = [entry for entry in found if is_below(entry.key[len(root) :], path)]
        keys = (entry.key for entry in entries)
        refuse_ways_out(self._storage.fs, [root + path, *keys])
        return root, entries

    def _missing(self, run_id: str, path: str) -> NotFoundError:
        experiment_id = self._locate(run_id)
        root = layout.artifacts(experiment_id, run_id)
        known = [entry.key[len(root) :] for entry in self._storage.fs.list(root)]
        where = self.uri(experiment_id, run_id)
        return NotFoundError.of("artifact", path, url=where, known=known)

    def _replacement(self, run_id: str, root: str) -> Replacement | None:
        ledger = self._ledger
        if ledger is None:
            return None
        return Replacement(self._storage.fs, root, lambda path: ledger.hear(run_id, path))

    def _fetch(
        self,
        wanted: Sequence[Wanted],
        replacement: Replacement | None,
        progress: Callable[[Progress], None] | None,
    ) -> None:
        """Fetch small files side by side; large ones in turn, each in pieces side by side."""
        size = sum(each.size_bytes for each in wanted)
        meter = Meter("fetching", all_bytes=size, all_files=len(wanted), progress=progress)

        def fetch(each: Wanted) -> None:
            try:
                _fetch_one(self._storage.fs, each, replacement, arrived=meter.arrived)
            except FileNotFoundError as error:
                message = f"{self._storage.url}/{each.key} was deleted while it was fetched."
                raise NotFoundError(message, url=self._storage.url) from error
            meter.finished()

        small = [each for each in wanted if each.size_bytes <= _SMALL_BYTES]
        large = [each for each in wanted if each.size_bytes > _SMALL_BYTES]
        with meter:
            if len(small) > 1 and self._threads > 1:
                with ThreadPoolExecutor(self._threads, thread_name_prefix="runlake-get") as pool:
                    for _ in pool.map(fetch, small):
                        pass
            else:
                large = small + large
            for each in large:
                fetch(each)

    def _logged(self, run_id: str) -> Mapping[str, Logged]:
        return {} if self._ledger is None else self._ledger.logged(run_id)

    def _writable(self, place: Place) -> Ledger:
        """Return the ledger, if files of a run may be changed."""
        if self._ledger is None:
            message = f"the artifacts of {self._storage.url} cannot be changed from here."
            raise StateError(message, url=self._storage.url)
        self._ledger.check(*place)
        return self._ledger


def _fetch_one(
    fs: Filesystem,
    wanted: Wanted,
    replacement: Replacement | None,
    *,
    arrived: Callable[[int], None],
) -> None:
    """Fetch one file; another one where it is replaced meanwhile."""
    if replacement is None:
        fetching.fetch(fs, wanted, arrived=arrived)
        return
    for left in reversed(range(_TRIES)):
        is_logged = partial(replacement.is_logged, wanted)
        try:
            fetching.fetch(fs, wanted, arrived=arrived, is_logged=is_logged)
        except (FormatError, ReplacedError):
            again = replacement.again(wanted) if left else None
            if again is None:
                raise
            wanted = again
        else:
            return
