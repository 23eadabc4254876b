"""The packages that this process can import, with their versions."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_DIVIDER: Final = re.compile(r"[-_.]+")
_SUFFIXES: Final = (".dist-info", ".egg-info")
_HEAD_BYTES: Final = 1 << 14


def installed(path: Iterable[str]) -> dict[str, str]:
    """Return what is installed, as `importlib.metadata` would say.

    Names of folders say nearly all; reading each package's metadata takes a hundred times as
    long, and keeps the training waiting meanwhile.

    Args:
        path: folders to import from, as `sys.path`; of a package in several, the first counts.

    Returns:
        Versions by name, as PyPI writes names (lower case, `-` between words), in their order.
    """
    found: dict[str, str] = {}
    for folder in dict.fromkeys(path):
        for name, version in _installed_in(folder or "."):
            found.setdefault(name, version)
    return dict(sorted(found.items()))


def _installed_in(folder: str) -> Iterator[tuple[str, str]]:
    try:
        entries = sorted(os.listdir(folder))  # noqa: PTH208 - names are all that is wanted
    except OSError:  # a zip file, or nothing
        return
    for entry in entries:
        if not entry.endswith(_SUFFIXES):
            continue
        stem = entry.rpartition(".")[0]
        name, _, version = stem.rpartition("-")
        if not version or entry.endswith(".egg-info"):
            name, version = _read(Path(folder, entry))
        if name and version:
            yield _DIVIDER.sub("-", name).lower(), version


def _read(file: Path) -> tuple[str, str]:
    """Return name and version as the metadata have them; empty where there are none."""
    for inside in (file / "METADATA", file / "PKG-INFO", file):
        try:
            with inside.open("rb") as opened:
                head = opened.read(_HEAD_BYTES).decode(errors="replace")
        except OSError:
            continue
        fields = dict(re.findall(r"^(Name|Version):[ \t]*(\S+)", head, flags=re.MULTILINE))
        return fields.get("Name", ""), fields.get("Version", "")
    return "", ""
