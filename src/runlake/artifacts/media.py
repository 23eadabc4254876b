"""Media: files of a run that are shown, with a key and a step to find them by.

A medium without a path of its own lies at `<folder of its kind>/<key>/<step>-<ULID>.<suffix>`,
the parts of a table at `<its path>/<step>-<ULID>.parquet`: the paths of one key sort by step and
then by time, and no two writers ever choose the same. The key, the step and the kind stand in
the file's event, so that no path needs to be parsed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final

from runlake import clock, ids
from runlake.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

IMAGE: Final = "image"
FIGURE: Final = "figure"
TABLE: Final = "table"
AUDIO: Final = "audio"
HTML: Final = "html"
MARKDOWN: Final = "markdown"

_FOLDERS: Final = {
    IMAGE: "images",
    FIGURE: "figures",
    AUDIO: "audio",
    HTML: "html",
    MARKDOWN: "markdown",
}
# What Python's own table of types lacks, or has from the machine's.
_TYPES: Final = {
    ".flac": "audio/flac",
    ".jpeg": "image/jpeg",
    ".jpg": "image/jpeg",
    ".md": "text/markdown",
    ".mp3": "audio/mpeg",
    ".ogg": "audio/ogg",
    ".parquet": "application/vnd.apache.parquet",
    ".png": "image/png",
    ".wav": "audio/wav",
    ".webp": "image/webp",
}
_ODD: Final = re.compile(r'[%\\:*?"<>|#]|^\.|[. ]$|^$')
_PART_BYTES: Final = 200  # filesystems take names of 255
_FOLDER_BYTES: Final = 500
_CUT_CHARS: Final = 40
_STEP_DIGITS: Final = 19


@dataclass(frozen=True, slots=True)
class Medium:
    """One medium, ready to be stored.

    Attributes:
        media: which kind, as `image`.
        data: the file; empty where it is a local one.
        suffix: of the file, with its dot.
        details: what is known of the content, as `width`; JSON.
        file: a local file that is sent as it is.
    """

    media: str
    data: bytes
    suffix: str
    details: Mapping[str, object] = field(default_factory=dict)
    file: Path | None = None


@dataclass(frozen=True, slots=True)
class Spot:
    """Where a medium is found: under a path of its own, or by key and step.

    Attributes:
        artifact_file: the path below the run; None goes by the key.
        key: what it is a picture of; None goes by the path.
        step: as of a metric; None where it has a path and no step.
        time_us: when, if the user said so, microseconds since 1970.
        caption: what people read below it.
    """

    artifact_file: str | None
    key: str | None
    step: int | None
    time_us: int | None = None
    caption: str | None = None

    @property
    def suffix(self) -> str:
        """The ending of its own path, lower-case and with its dot; empty without one."""
        return PurePosixPath(self.artifact_file or "").suffix.lower()

    def path(self, medium: Medium) -> str:
        """Return the path below the run, a new one where it goes by the key."""
        name = f"{step_text(self.step or 0)}-{ids.new_writer_id(clock.now_us())}{medium.suffix}"
        if medium.media == TABLE:
            return f"{self.artifact_file}/{name}"
        if self.artifact_file is not None:
            return self.artifact_file
        return f"{_FOLDERS[medium.media]}/{folder_of(self.key or '')}/{name}"

    def about(self, medium: Medium) -> dict[str, object]:
        """Return the fields that the file's event says of the medium."""
        said: dict[str, object] = {
            "media": medium.media,
            "key": self.artifact_file if self.key is None else self.key,
            "step": self.step,
        }
        if self.time_us is not None:
            said["time_us"] = self.time_us
        if self.caption is not None:
            said["caption"] = self.caption
        kind = _TYPES.get(medium.suffix if medium.media == TABLE else self.suffix or medium.suffix)
        if kind is not None:
            said["media_type"] = kind
        return said | dict(medium.details)


def check_one(what: str, artifact_file: str | None, key: str | None) -> None:
    """Refuse a medium that has neither a path nor a key, or both.

    Args:
        what: the call, for the message.
        artifact_file: its path.
        key: its key.

    Raises:
        InvalidInputError: it has neither or both.
    """
    if (artifact_file is None) == (key is None):
        found = "neither" if key is None else "both"
        raise InvalidInputError(
            f"{what} takes a path (artifact_file='shown/cat.png') or a key (key='cats', step=10), "
            f"got {found}."
        )


def step_text(step: int) -> str:
    """Return a step as text that sorts as the number does.

    Args:
        step: any 64-bit whole number.
    """
    if step < 0:
        return f"-{10**_STEP_DIGITS + step:0{_STEP_DIGITS}d}"
    return f"{step:0{_STEP_DIGITS}d}"


def folder_of(key: str) -> str:
    """Return the folder for a key: the key itself where every store takes it so.

    Args:
        key: printable text; `/` makes folders.

    Returns:
        Parts joined by `/`. What a store or system may refuse is written `%XX`, and of a key
        that is too long the beginning and a hash.
    """
    parts = [_ODD.sub(_quote, part) for part in key.split("/")]
    folder = "/".join(parts)
    longest = max(len(part.encode()) for part in parts)
    if longest <= _PART_BYTES and len(folder.encode()) <= _FOLDER_BYTES:
        return folder
    return f"{_ODD.sub(_quote, key[:_CUT_CHARS].replace('/', ' '))}~{ids.name_hash(key)}"


def _quote(found: re.Match[str]) -> str:
    return f"%{ord(found[0]):02X}" if found[0] else "%"
