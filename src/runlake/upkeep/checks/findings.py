"""What a check of a lake found: plain sentences, under codes that stay."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple, final

if TYPE_CHECKING:
    from collections.abc import Callable

# What a finding is called; programs may compare these, and codes are only ever added.
DAMAGED: Final = "damaged"
"""A file cannot be read whole, or is not what its name, its footer or a manifest says."""
FOREIGN: Final = "foreign"
"""A file of another lake."""
MISSING: Final = "missing"
"""A file that must be there is not."""
HOLE: Final = "hole"
"""Rows are nowhere, though later rows of their writer are there."""
COUNT: Final = "count"
"""Tables hold more or fewer rows of a writer than its watermark says."""
STATE: Final = "state"
"""A state in the tables is not what the rows there say."""
HISTORY: Final = "history"
"""Two manifests do not follow each other."""
PURGED: Final = "purged"
"""A file still holds rows of a run that was purged, or is one of its artifacts."""
ARTIFACT: Final = "artifact"
"""An artifact is not what the log says of it."""
MODEL: Final = "model"
"""A version of a registered model points at files that are gone."""
UNKNOWN: Final = "unknown"
"""No file of a lake has such a name."""
# These are no faults.
NEWER: Final = "newer"
SUPERSEDED: Final = "superseded"
CONSUMED: Final = "consumed"
ORPHAN: Final = "orphan"
LEFTOVER: Final = "leftover"
UNTRACED: Final = "untraced"
"""A claim of a model or version of which no event tells yet."""
QUARANTINED: Final = "quarantined"
# What a repair does; `quarantined` is one of these as well.
REBUILT: Final = "rebuilt"
LOST: Final = "lost"
REFUSED: Final = "refused"
NOTES: Final = frozenset({NEWER, SUPERSEDED, CONSUMED, ORPHAN, LEFTOVER, UNTRACED, QUARANTINED})


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found about one file.

    Attributes:
        key: the file, below the lake's root; or the prefix of several.
        kind: a code. Faults are `damaged`, `foreign`, `missing`, `hole`, `count`, `state`,
            `history`, `purged`, `artifact`, `model` and `unknown`. None are `newer` (another
            version must check it), `superseded`, `consumed` and `orphan` (vacuum may take it),
            `leftover`, `untraced` and `quarantined`.
        detail: a sentence for people.
    """

    key: str
    kind: str
    detail: str

    @property
    def is_fault(self) -> bool:
        """Whether something is wrong with the lake."""
        return self.kind not in NOTES


@dataclass(frozen=True, slots=True)
class Mended:
    """One thing that a repair did, or refused to do.

    Attributes:
        key: the file.
        deed: `quarantined`, `rebuilt`, `lost` (rows that are in no other file) or `refused`.
        detail: a sentence for people.
    """

    key: str
    deed: str
    detail: str


class Checked(NamedTuple):
    """How far a check has come.

    Attributes:
        files: read whole so far.
        size_bytes: of these.
        all_files: that are to be read.
        all_bytes: of these.
    """

    files: int
    size_bytes: int
    all_files: int
    all_bytes: int


@dataclass(frozen=True, slots=True)
class Report:
    """What `verify` found.

    Attributes:
        lake: the lake's id, None if its file cannot be read.
        object_count: objects listed, artifacts among them.
        segment_count: segments read whole.
        row_count: rows in them, superseded ones among them.
        size_bytes: of all objects listed.
        findings: by key.
        table_count: files of compacted rows in force, read whole.
        table_rows: rows in them.
        mended: what a repair did.
    """

    lake: str | None
    object_count: int
    segment_count: int
    row_count: int
    size_bytes: int
    findings: tuple[Finding, ...]
    table_count: int = 0
    table_rows: int = 0
    mended: tuple[Mended, ...] = ()

    @property
    def is_sound(self) -> bool:
        """Whether nothing is wrong."""
        return not any(finding.is_fault for finding in self.findings)


def _ignore(_: Checked) -> None:
    """Tell nobody."""


@final
@dataclass(slots=True)
class Notebook:
    """Findings and counts as they come, from any thread.

    Attributes:
        progress: called with each file that is counted.
        on_file: called with the length of each file that is counted.
        findings: what was found.
        all_files: that are to be counted.
        all_bytes: of these.
    """

    progress: Callable[[Checked], None] = _ignore
    on_file: Callable[[int], None] | None = None
    findings: list[Finding] = field(default_factory=list)
    all_files: int = 0
    all_bytes: int = 0
    _files: int = 0
    _bytes: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def say(self, key: str, kind: str, detail: str) -> None:
        """Write a finding down; the same thing once.

        Args:
            key: the file, or the prefix of several.
            kind: a code.
            detail: a sentence for people.
        """
        found = Finding(key, kind, detail)
        with self._lock:
            if found not in self.findings:
                self.findings.append(found)

    def is_broken(self, key: str) -> bool:
        """Tell whether a file was found to be at fault."""
        return any(each.key == key and each.is_fault for each in self.findings)

    def count(self, size_bytes: int) -> None:
        """Count a file as read, and tell of it."""
        if self.on_file is not None:
            self.on_file(size_bytes)
            return
        with self._lock:
            self._files += 1
            self._bytes += size_bytes
            self.progress(Checked(self._files, self._bytes, self.all_files, self.all_bytes))

    def sorted(self) -> tuple[Finding, ...]:
        """Return all findings by key."""
        return tuple(sorted(self.findings, key=lambda each: (each.key, each.kind, each.detail)))
