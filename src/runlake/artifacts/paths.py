"""Where an artifact may lie: below its run, and below the folder that it is fetched into.

A path is kept exactly as it is given, letter by letter: two spellings of one letter in Unicode
are two paths, as they are in a bucket. What some filesystem could not keep is refused by all,
so that every artifact can be fetched on every machine.
"""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING, Final

from runlake import arguments
from runlake.errors import FormatError, InvalidInputError
from runlake.storage.filesystem import TEMPORARY

if TYPE_CHECKING:
    import os
    from pathlib import Path

PATH_BYTES: Final = 800
"""Greatest length of a path in UTF-8: stores take keys of 1,024; the rest is the lake's."""
PART_BYTES: Final = 255
"""Greatest length of a part between slashes in UTF-8: what disks take."""
# Controls, lone surrogates, code points without a character, and the two that break lines.
_REFUSED: Final = frozenset({"Cc", "Cs", "Cn", "Zl", "Zp"})


def check_path(path: str | os.PathLike[str]) -> str:
    """Return an artifact's path if it stays below its run and every store can keep it.

    Args:
        path: parts joined by `/`; slashes at its end are left out.

    Returns:
        The path as it is kept.

    Raises:
        InvalidInputError: it leaves the run, is too long, or holds what cannot be kept.
    """
    text = arguments.path("artifact_file", path)
    clean = text.rstrip("/")
    parts = clean.split("/")
    if not all(parts) or {".", ".."} & set(parts) or "\\" in clean:
        message = (
            f"artifact path {text[:80]!r} must lie below the run: use parts joined by '/', none of "
            "them empty, '.' or '..', no leading slash and no backslash."
        )
        raise InvalidInputError(message)
    if any(unicodedata.category(char) in _REFUSED for char in clean):
        message = f"artifact path {text[:80]!r} must be text without control characters."
        raise InvalidInputError(message)
    longest = max(len(part.encode()) for part in parts)
    if len(clean.encode()) > PATH_BYTES or longest > PART_BYTES:
        message = (
            f"artifact path {text[:80]!r}… is too long: it may have {PATH_BYTES} bytes of UTF-8, "
            f"and {PART_BYTES} between two slashes."
        )
        raise InvalidInputError(message)
    if any(part.startswith(TEMPORARY) for part in parts):
        message = (
            f"artifact path {text[:80]!r} begins as half-written files do: no part of it may "
            f"start with {TEMPORARY!r}."
        )
        raise InvalidInputError(message)
    return clean


def check_folder(path: str | os.PathLike[str]) -> str:
    """Return the checked path of a folder of a run, or of a file; empty is the run's own.

    Raises:
        InvalidInputError: it leaves the run, or cannot be kept.
    """
    below = arguments.path("path", path)
    return check_path(below) if below else ""


def join(folder: str | None, inside: str) -> str:
    """Return the checked path of something inside a folder of a run; None is the run's own.

    Raises:
        InvalidInputError: it leaves the run, or cannot be kept.
    """
    below = "" if folder is None else arguments.path("artifact_path", folder)
    return check_path(f"{check_path(below)}/{inside}" if below else inside)


def is_below(inside: str, path: str) -> bool:
    """Tell whether a path is another, or lies below it; everything lies below the empty one."""
    return not path or inside == path or inside.startswith(f"{path}/")


def local_target(folder: Path, inside: str, *, url: str) -> Path:
    """Return the local file that an object is fetched into.

    Args:
        folder: where everything goes.
        inside: the object's key below its run, whatever it holds.
        url: the lake, for the message.

    Raises:
        FormatError: the key would leave the folder; no runlake has written it.
    """
    parts = inside.split("/")
    if not all(parts) or {".", ".."} & set(parts) or "\\" in inside or "\0" in inside:
        message = (
            f"{url} holds an object {inside!r} that would be written outside of the folder it is "
            "fetched into. No runlake has put it there; nothing was fetched."
        )
        raise FormatError(message, url=url)
    return folder.joinpath(*parts)
