"""What is a file of a run and what a folder: a bucket may hold both under one path, no disk can."""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING, final

from runlake.errors import InvalidInputError, StateError
from runlake.storage import layout

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from runlake.artifacts.sending import Place
    from runlake.storage.filesystem import Filesystem


@final
class Shape:
    """Keeps files of runs where others are not in their way.

    A disk is asked what is there. Of what lies elsewhere is known what one process has put into
    one run: to ask would cost a request for each file.
    """

    def __init__(self, fs: Filesystem, *, remembers: bool = False) -> None:
        """Know nothing yet.

        Args:
            fs: the lake's storage.
            remembers: it is for one run, and what is put into it is to be remembered.
        """
        self._fs = fs
        self._remembers = remembers and not fs.is_local
        self._files: set[str] = set()
        self._folders: set[str] = set()

    def take(self, place: Place, paths: Sequence[str]) -> None:
        """Refuse a file where the run has a folder, or below a file.

        Args:
            place: experiment and run.
            paths: of the files that are about to be put, checked.

        Raises:
            InvalidInputError: one of them is in the way of what is there; nothing is put yet.
            StorageError: the store cannot be asked.
        """
        clashes = self._on_disk if self._fs.is_local else self._remembered
        for path, other in clashes(layout.artifacts(*place), paths):
            there = other.rstrip("/")
            message = (
                f"artifact path {path!r} cannot be kept: {there!r} is "
                f"{'a file' if there == other else 'a folder'} of this run, and no disk can hold "
                "both. Choose another path, or delete what is there: "
                f"lake.artifacts.delete({place[1]!r}, {there!r})."
            )
            raise InvalidInputError(message)
        if self._remembers:
            for path in paths:
                self._files.add(path)
                self._folders.update(layout.folders_above(path))

    def _on_disk(self, root: str, paths: Sequence[str]) -> Iterator[tuple[str, str]]:
        """Yield paths, each with the file, or the folder with `/`, that is in its way."""
        run = self._fs.local_file(root.rstrip("/"))
        folders: dict[str, str] = {}
        for path in paths:
            folders.setdefault(posixpath.dirname(path), path)
            if (run / path).is_dir():
                yield path, f"{path}/"
        for folder, path in folders.items():
            for above in layout.folders_above(f"{folder}/" if folder else ""):
                if (run / above).is_file():
                    yield path, above

    def _remembered(self, root: str, paths: Sequence[str]) -> Iterator[tuple[str, str]]:
        """Yield the same of what was put and has not been deleted since."""
        for path in paths:
            known = (above for above in layout.folders_above(path) if above in self._files)
            other = f"{path}/" if path in self._folders else next(known, None)
            if other is not None and any(
                other.endswith("/") or each.key == root + other
                for each in self._fs.list(root + other)
            ):
                yield path, other


def refuse_both(run_id: str, paths: Iterable[str], *, url: str) -> None:
    """Refuse to fetch files of a run that no disk can hold beside each other.

    Args:
        run_id: the run.
        paths: the files.
        url: the lake, for the message.

    Raises:
        StateError: a file lies below another.
    """
    for below, above in layout.files_above(paths):
        message = (
            f"run {run_id} has a file {above!r} and a file {below!r}, which no disk can hold "
            f"both; nothing was fetched. Fetch {below!r} by itself and read {above!r} with "
            f"lake.artifacts.open, or `runlake artifacts rm {run_id} {below}`."
        )
        raise StateError(message, url=url)
