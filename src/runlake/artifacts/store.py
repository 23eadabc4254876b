"""Put, list and fetch the files of runs.

An artifact lies under `artifacts/<experiment>/<run>/<path>` as it is, and an event in the log
says its size, type and SHA-256. These calls wait for the store: when one returns, the file is
there whole.
"""

from __future__ import annotations

import hashlib
import json
import mimetypes
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from runlake import schema
from runlake._lazy import need
from runlake.errors import InvalidInputError, NotFoundError
from runlake.storage import layout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from runlake.storage.engine import Storage

Row: TypeAlias = tuple[str, str, str, float | None, str | None]
Place: TypeAlias = tuple[str, str]  # experiment_id, run_id
_CHUNK_BYTES: Final = 1 << 20
_PATH_LIMIT_BYTES: Final = 800  # object stores take keys of 1,024 bytes; the rest is the lake's


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
    """The files of all runs of one lake."""

    def __init__(self, storage: Storage, locate: Callable[[str], str]) -> None:
        """Nothing is read before it is asked for.

        Args:
            storage: of the lake.
            locate: tells a run's experiment, or raises NotFoundError.
        """
        self._storage = storage
        self._locate = locate

    def uri(self, experiment_id: str, run_id: str) -> str:
        """Return the URL of a run's folder."""
        return f"{self._storage.fs.url}/{layout.artifacts(experiment_id, run_id)}".rstrip("/")

    def put(
        self, place: Place, local: str | os.PathLike[str], *, folder: str | None
    ) -> Iterator[Row]:
        """Upload a file, or a folder under its own name; yield an event for each file.

        Args:
            place: experiment and run.
            local: the file or folder.
            folder: below the run; None is the run's own.

        Yields:
            The event of each file, once it is in the store.

        Raises:
            InvalidInputError: there is no such file, or the path leaves the run.
            StorageError: the store refused.
        """
        source = Path(local)
        if source.is_dir():
            yield from self.put_all(place, source, folder=_join(folder, source.resolve().name))
            return
        if not source.is_file():
            message = f"no file {str(local)!r} to log as an artifact."
            raise InvalidInputError(message)
        yield self._upload(place, source, _join(folder, source.name))

    def put_all(
        self, place: Place, local: str | os.PathLike[str], *, folder: str | None
    ) -> Iterator[Row]:
        """Upload all files below a folder; yield an event for each.

        Links to files are followed, links to folders are not: they may lead in circles.

        Args:
            place: experiment and run.
            local: the folder.
            folder: below the run; None is the run's own.

        Yields:
            The event of each file, once it is in the store.

        Raises:
            InvalidInputError: there is no such folder, or a path leaves the run.
            StorageError: the store refused.
        """
        root = Path(local)
        if not root.is_dir():
            message = f"no folder {str(local)!r} to log as artifacts."
            raise InvalidInputError(message)
        for here, folders, files in os.walk(root):
            folders.sort()
            for name in sorted(files):
                source = Path(here) / name
                inside = source.relative_to(root).as_posix()
                yield self._upload(place, source, _join(folder, inside))

    def put_bytes(self, place: Place, path: str, *, data: bytes) -> Row:
        """Write one artifact from memory; return its event.

        Args:
            place: experiment and run.
            path: below the run.
            data: the content; may be empty.

        Returns:
            The event that says so.

        Raises:
            InvalidInputError: the path leaves the run.
            StorageError: the store refused.
        """
        key = self._key(place, path)
        self._storage.ensure_lake()
        if data:
            self._storage.fs.put(key, data)
        else:
            with tempfile.NamedTemporaryFile() as empty:
                self._storage.fs.upload(key, Path(empty.name))
        return _event(place, path, len(data), hashlib.sha256(data).hexdigest())

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
        try:
            if path.endswith((".yaml", ".yml")):
                text = need("yaml").safe_dump(value, sort_keys=False, allow_unicode=True)
            else:
                text = json.dumps(value, indent=2, ensure_ascii=False, default=_plain)
        except (TypeError, ValueError) as error:
            message = f"the value for {path!r} cannot be written: {error}"
            raise InvalidInputError(message) from error
        return self.put_bytes(place, path, data=text.encode())

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
        prefix = f"{root}{_checked(path)}/" if path else root
        found: dict[str, FileInfo] = {}
        for entry in self._storage.fs.list(prefix):
            first, slash, _ = entry.key.removeprefix(prefix).partition("/")
            inside = f"{path}/{first}" if path else first
            size = None if slash else entry.size_bytes
            found[inside] = FileInfo(inside, bool(slash), size)
        return [found[name] for name in sorted(found)]

    def download(
        self, run_id: str, path: str = "", *, target: str | os.PathLike[str] | None = None
    ) -> Path:
        """Fetch one artifact, or a folder of them.

        Args:
            run_id: the run.
            path: a file or folder below the run; empty means everything.
            target: the local folder to put it in; None makes a temporary one.

        Returns:
            Where the file or folder now lies.

        Raises:
            NotFoundError: there is no such run, or it has no such artifact.
            StorageError: the store refused.
        """
        experiment_id = self._locate(run_id)
        root = layout.artifacts(experiment_id, run_id)
        folder = Path(target or tempfile.mkdtemp(prefix="runlake-"))
        path = _checked(path) if path else ""
        everything = [entry.key for entry in self._storage.fs.list(root)]
        wanted = [key for key in everything if not path or _is_below(key[len(root) :], path)]
        if not wanted:
            known = [key.removeprefix(root) for key in everything]
            where = self.uri(experiment_id, run_id)
            raise NotFoundError.of("artifact", path, url=where, known=known)
        for key in wanted:
            self._storage.fs.download(key, folder / key.removeprefix(root))
        return folder / path

    def _upload(self, place: Place, source: Path, path: str) -> Row:
        key = self._key(place, path)
        self._storage.ensure_lake()
        digest = hashlib.sha256()
        size = 0
        with source.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
                size += len(chunk)
        self._storage.fs.upload(key, source)
        return _event(place, path, size, digest.hexdigest())

    @staticmethod
    def _key(place: Place, path: str) -> str:
        experiment_id, run_id = place
        return layout.artifacts(experiment_id, run_id) + _checked(path)


def _event(place: Place, path: str, size: int, digest: str) -> Row:
    kind, _ = mimetypes.guess_type(path)
    about = {"sha256": digest, "media_type": kind or "application/octet-stream"}
    text = json.dumps(about, separators=(",", ":"))
    return place[1], schema.ARTIFACT, _checked(path), float(size), text


def _join(folder: str | None, inside: str) -> str:
    return f"{_checked(folder)}/{inside}" if folder else inside


def _is_below(inside: str, path: str) -> bool:
    return inside == path or inside.startswith(f"{path}/")


def _checked(path: str) -> str:
    """Return an artifact's path if it stays below its run."""
    path = str(path)
    clean = path.replace(os.sep, "/").strip("/")
    parts = PurePosixPath(clean).parts
    leaves = path.startswith(("/", "\\"))
    if not clean or leaves or ".." in parts or "." in clean.split("/") or "//" in clean:
        message = (
            f"artifact path {path!r} must lie below the run: use parts joined by '/', none of "
            "them '.' or '..', no leading slash."
        )
        raise InvalidInputError(message)
    if len(clean.encode()) > _PATH_LIMIT_BYTES or not clean.isprintable():
        message = (
            f"artifact path {path[:80]!r} must be printable and at most "
            f"{_PATH_LIMIT_BYTES} bytes of UTF-8."
        )
        raise InvalidInputError(message)
    return clean


def _plain(value: object) -> object:
    """Write scalars and arrays of NumPy and its kin as JSON."""
    plain = getattr(value, "tolist", None) or getattr(value, "item", None)
    if callable(plain):
        return plain()
    if isinstance(value, (os.PathLike, set, frozenset)):
        return sorted(value) if isinstance(value, (set, frozenset)) else os.fspath(value)
    message = f"{type(value).__name__} is not JSON"
    raise TypeError(message)
