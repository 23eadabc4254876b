"""Files on their way into MLflow: those go that are not there as they are in the lake."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from runlake.artifacts.sending import sha256_of
from runlake.importers.mlflow_client import files_at

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

Marks: TypeAlias = "Mapping[str, tuple[int, str]]"  # bytes, and SHA-256 in hex, by path


def send_files(
    files: Marks,
    there: Callable[[], Marks],
    *,
    fetch: Callable[[str, Path], None],
    put: Callable[[str, str | None], None],
) -> dict[str, int]:
    """Send the files that are not there with the same content.

    Args:
        files: as the lake has them.
        there: returns what MLflow has.
        fetch: brings the file of a path to a local one.
        put: sends a local file into a folder of MLflow's; None is the topmost.

    Returns:
        The length of each that was sent, by path.
    """
    known = there() if files else {}
    sent = {}
    for path, mark in files.items():
        if known.get(path) == mark:
            continue
        above, _, name = path.rpartition("/")
        with tempfile.TemporaryDirectory(prefix="runlake-export-") as folder:
            file = Path(folder) / name
            fetch(path, file)
            put(str(file), above or None)
        sent[path] = mark[0]
    return sent


def wrong_files(files: Marks, there: Callable[[], Marks]) -> Iterator[str]:
    """Compare files with what is there.

    Args:
        files: as the lake has them.
        there: returns what MLflow has.

    Yields:
        Of each that is not there as it is in the lake, a sentence that says so.
    """
    known = there() if files else {}
    for path, mark in files.items():
        if known.get(path) != mark:
            yield f"file {path!r} is not there as it is in the lake."


def marks_at(client: Any, place: str) -> Marks:  # noqa: ANN401 - MLflow's
    """Return length and digest of each file that lies at one of MLflow's artifact URIs.

    They are read for it: MLflow keeps no digests.

    Args:
        client: MLflow's.
        place: of a run or a model.
    """
    found = {}
    for each in files_at(place, client.tracking_uri):
        with tempfile.TemporaryDirectory(prefix="runlake-export-") as folder:
            file = each.fetch(Path(folder))
            found[each.path] = file.stat().st_size, sha256_of(file)
    return found
