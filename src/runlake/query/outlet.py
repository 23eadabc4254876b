"""Where an export goes: a file, a folder or an archive, on a disk or in a store.

What is written appears whole or not at all: it is made under a name beside its place, or in the
system's temporary folder for a far store, and put there when it is done. An error, or Ctrl-C,
leaves what was there before. A far store has no folders: there the files come one by one, and the
one that explains the others last.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import zipfile
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

from runlake import ids
from runlake.errors import AlreadyExistsError, InvalidInputError, StorageError
from runlake.storage.fs import open_filesystem

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from runlake.settings import Settings
    from runlake.storage.fs import Filesystem

ARCHIVE: Final = ".zip"
# What explains a folder comes last: where it is, the rest is there too.
_LAST: Final = frozenset({"README.md", "run.json"})
_PACKED: Final = (".parquet", ".arrow", ".gz", ".zst", ".zip", ".png", ".jpg")


class Outlet:
    """One place for an export.

    Attributes:
        name: the last part of it.
        is_archive: it is one file that holds a folder.
        paths: the files that were put there last, as local paths or URLs.
        size_bytes: their length.
    """

    def __init__(
        self,
        target: str | os.PathLike[str],
        *,
        settings: Settings,
        lake: Filesystem | None = None,
        storage_options: Mapping[str, object] | None = None,
    ) -> None:
        """Find the place; no request is made.

        Args:
            target: a path, or a URL that fsspec knows.
            settings: of the lake.
            lake: what is exported, if it is one; nothing may be written into it.
            storage_options: for fsspec; None takes the lake's where the scheme is the same.

        Raises:
            InvalidInputError: the target is no place to write to, or lies inside the lake.
            MissingDependencyError: the filesystem's package is not installed.
        """
        text = os.fspath(target).rstrip("/")
        parent, slash, self.name = text.rpartition("/")
        if not self.name or self.name in {".", "..", "~"} or parent.endswith(":/"):
            message = f"{os.fspath(target)!r} names no file or folder to export to."
            raise InvalidInputError(message)
        if storage_options is None:
            alike = settings.url.partition("://")[0] == text.partition("://")[0]
            storage_options = settings.storage_options if alike and "://" in text else {}
        self._fs = open_filesystem(
            parent + slash or ".", storage_options=storage_options, settings=settings
        )
        self._path = self._local_path() if self._fs.is_local else None
        self.paths: tuple[str, ...] = ()
        self.size_bytes = 0
        self.is_archive = self.name.lower().endswith(ARCHIVE)
        if lake is not None:
            self._refuse_lake(lake)

    @property
    def url(self) -> str:
        """Where it is, without credentials."""
        return str(self._path) if self._path else f"{self._fs.url}/{self.name}"

    @contextmanager
    def file(self) -> Iterator[IO[bytes]]:
        """Give a file to write to, and put it in its place.

        Yields:
            The file, empty.

        Raises:
            StorageError: the place cannot be written.
        """
        with self._scratch() as scratch:
            with self._told():
                sink = scratch.open("xb")
            with sink:
                yield sink
            with self._told():
                self.paths, self.size_bytes = (self.url,), scratch.stat().st_size
                if self._path is None:
                    self._fs.upload(self.name, scratch)
                else:
                    scratch.replace(self._path)

    @contextmanager
    def folder(self) -> Iterator[Path]:
        """Give a folder to fill, and put it in its place, or as an archive.

        Yields:
            A local folder, empty.

        Raises:
            AlreadyExistsError: there is a folder already that holds something.
            StorageError: the place cannot be written.
        """
        if self.is_archive:
            with self.file() as archive, tempfile.TemporaryDirectory(prefix="runlake-") as made:
                folder = Path(made)
                yield folder
                _pack(folder, archive)
            return
        self._refuse_filled()
        with self._scratch() as scratch:
            with self._told():
                scratch.mkdir()
            yield scratch
            with self._told():
                files = _files_below(scratch)
                names = [file.relative_to(scratch).as_posix() for file in files]
                self.paths = tuple(f"{self.url}/{name}" for name in names)
                self.size_bytes = sum(file.stat().st_size for file in files)
                if self._path is None:
                    for name, file in zip(names, files, strict=True):
                        self._fs.upload(f"{self.name}/{name}", file)
                else:
                    # An empty folder may be there; one that was filled meanwhile is refused.
                    scratch.rename(self._path)

    @contextmanager
    def _scratch(self) -> Iterator[Path]:
        """Give a path that is gone afterwards, whatever happens."""
        name = f".{self.name}.{ids.new_nonce()}.tmp"
        if self._path is None:
            scratch = Path(tempfile.gettempdir()) / name
        else:
            scratch = self._path.with_name(name)
            with self._told():
                scratch.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield scratch
        except FileNotFoundError:
            raise  # of the snapshot's, not of ours
        except OSError as error:
            raise self._failed(error) from error
        finally:
            if scratch.is_dir():
                shutil.rmtree(scratch, ignore_errors=True)
            else:
                scratch.unlink(missing_ok=True)

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Turn what the system says of the place into our error."""
        try:
            yield
        except OSError as error:
            raise self._failed(error) from error

    def _failed(self, error: OSError) -> StorageError:
        if isinstance(error, StorageError):
            return error
        message = f"cannot export to {self.url}: {error.strerror or error}."
        return StorageError(message, url=self.url)

    def _local_path(self) -> Path:
        """Return what is to be replaced: of a link what it leads to, not the link."""
        path = self._fs.local_file(self.name)
        if path.exists() and not (path.is_file() or path.is_dir()):
            message = (
                f"{path} is a device or a pipe, which no file can replace. "
                "Give an open stream, or `-` on the command line."
            )
            raise InvalidInputError(message)
        return Path(os.path.realpath(path)) if path.is_symlink() else path

    def _refuse_lake(self, lake: Filesystem) -> None:
        if self._path is None or not lake.is_local:
            inside = f"{self.url}/".startswith(f"{lake.url}/")
        else:
            inside = self._path.resolve().is_relative_to(Path(lake.url).resolve())
        if inside:
            message = f"{self.url} lies inside the lake {lake.url}; export to another place."
            raise InvalidInputError(message)

    def _refuse_filled(self) -> None:
        if self._path is None:
            filled = bool(self._fs.list(f"{self.name}/"))
        else:
            filled = self._path.exists() and not (
                self._path.is_dir() and next(self._path.iterdir(), None) is None
            )
        if filled:
            message = f"{self.url} is there already; an export makes a new folder."
            raise AlreadyExistsError(message, url=self.url)


def _files_below(folder: Path) -> list[Path]:
    """Return the files below a folder, those of its own last."""
    files = [file for file in folder.rglob("*") if file.is_file()]
    return sorted(files, key=lambda file: (-len(file.parts), file.name in _LAST, file))


def _pack(folder: Path, archive: IO[bytes]) -> None:
    """Write a folder's files into an archive; what is compressed inside is stored as it is."""
    with zipfile.ZipFile(archive, "w") as packed:
        for file in _files_below(folder):
            stored = file.suffix.lower() in _PACKED
            kind = zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED
            packed.write(file, file.relative_to(folder), compress_type=kind)
