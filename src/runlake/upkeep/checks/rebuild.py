"""Working out which files of compacted rows are in force, where no manifest tells it.

Each file's footer says which rows of which writers went in, or which files it holds instead.
That is enough, because rows are what writers have said and never change: **any choice of files
that holds each row up to the watermarks once gives the same answers.** So nobody need know
which commits were won.

The choice: a file that holds others instead goes where all of them are there, and else they go,
because vacuum deletes only what a manifest in force has replaced. Of files made from segments,
those of a commit stay whose rows follow what tables hold already; a commit's file of table
`writers` is written last, and tells that the others are there. Where two attempts were made
for one number, or a file is broken, every choice between them is tried, until one holds of each
writer as many rows as its watermark says, and no row that any file or manifest speaks of is
neither in tables nor in segments. The normative text is `docs/spec/v1.md`, "Rebuild".
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from itertools import islice, product
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from runlake.storage import layout
from runlake.storage.manifest import NOTHING_CONSUMED
from runlake.storage.snapshot import Stream, choose
from runlake.storage.table_files import EVENTS, METRICS, WRITERS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from runlake.storage.layout import SegmentName, TableName
    from runlake.storage.manifest import TableFile
    from runlake.storage.table_files import TableHeader

_VARIANTS: Final = 4096


class Group(NamedTuple):
    """The files of one attempt at a commit."""

    number: int
    experiment_id: str
    commit: str


@dataclass(frozen=True, slots=True)
class Surveyed:
    """A file of compacted rows, and what is in it.

    Attributes:
        file: as a manifest would name it.
        name: what its key says.
        header: what it says of itself.
        counts: of tables `metrics` and `events`, how many rows of each writer.
        lasts: of table `writers`, the watermark of each.
    """

    file: TableFile
    name: TableName
    header: TableHeader
    counts: Mapping[str, int]
    lasts: Mapping[str, int]

    @property
    def group(self) -> Group:
        """The attempt that it was written by, or copied for."""
        return Group(self.name.number, self.name.experiment_id, self.header.commit)


Files: TypeAlias = "Mapping[str, Surveyed]"
Lasts: TypeAlias = "dict[Stream, int]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What is there to choose from.

    Attributes:
        files: all whole table files of this lake that may be in force.
        proved: keys of those that a manifest names, which is older than the others.
        reached: rows that must be in tables or in segments: of each stream the last.
        segments: whole segments of each stream.
        doubtful: numbers of manifests of whose files some are broken or gone.
        may_lack: rows may be missing below a watermark, because runs were purged.
        copied: writers that have rows in tables and no watermark.
    """

    files: Files
    proved: frozenset[str] = frozenset()
    reached: Mapping[Stream, int] = field(default_factory=dict)
    segments: Mapping[Stream, Sequence[SegmentName]] = field(default_factory=dict)
    doubtful: frozenset[int] = frozenset()
    may_lack: bool = False
    copied: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Choice:
    """Files that hold each row once.

    Attributes:
        keys: of the files.
        lasts: how far each stream is compacted.
    """

    keys: frozenset[str]
    lasts: Mapping[Stream, int]


def chosen_from(found: Found) -> Choice | None:
    """Choose the files that hold each row once.

    Args:
        found: what is there.

    Returns:
        The choice; None where there is none.
    """
    for banned in islice(_bans(found), _VARIANTS):
        choice = _Choosing(found, banned).choose()
        if choice is not None and is_whole(found, choice):
            return choice
    return None


def is_whole(found: Found, choice: Choice) -> bool:
    """Tell whether chosen files hold each row up to the watermarks once, and none is lost."""
    counts: Counter[Stream] = Counter()
    for key in choice.keys:
        for writer, count in found.files[key].counts.items():
            counts[Stream(found.files[key].name.experiment_id, writer)] += count
    for stream in counts.keys() | choice.lasts.keys():
        expected = choice.lasts.get(stream, NOTHING_CONSUMED) + 1
        if stream.writer in found.copied:
            continue
        if counts[stream] > expected or (counts[stream] < expected and not found.may_lack):
            return False
    return not lost_rows(found, choice.lasts)


def lost_rows(found: Found, lasts: Mapping[Stream, int]) -> dict[Stream, tuple[int, int]]:
    """Return of each stream the first and last row that neither tables nor segments hold."""
    lost = {}
    for stream, last in found.reached.items():
        mark = lasts.get(stream, NOTHING_CONSUMED)
        if mark >= last:
            continue
        reached, _ = choose(found.segments.get(stream, ()), mark)
        reach = reached[-1][0].last if reached else mark
        if reach < last:
            lost[stream] = (reach + 1, last)
    return lost


def _bans(found: Found) -> Iterator[frozenset[Group]]:
    """Yield which attempts to leave out: none first, then all others in turn."""
    attempts: dict[int, set[Group]] = defaultdict(set)
    finished: set[Group] = set()
    for each in found.files.values():
        if each.file.path not in found.proved:
            attempts[each.name.number].add(each.group)
            if each.name.table == WRITERS.name or each.header.replaces:
                finished.add(each.group)
    options: list[list[frozenset[Group]]] = []
    for number in sorted(attempts):
        groups = attempts[number]
        if len(groups) > 1:
            alone = [frozenset(groups - {group}) for group in sorted(groups)]
            options.append([frozenset(), *alone, frozenset(groups)])
        elif number in found.doubtful or not groups <= finished:
            options.append([frozenset(), frozenset(groups)])
    for combination in product(*options):
        yield frozenset().union(*combination)


class _Choosing:
    """One choice under way."""

    def __init__(self, found: Found, banned: Collection[Group]) -> None:
        self._found = found
        files = found.files
        self._kept = {key for key in files if key in found.proved or files[key].group not in banned}
        standing = {(files[key].name.number, files[key].name.experiment_id) for key in self._kept}
        # Commits that are taken back: their rows are to be in segments still.
        self._undone = {group[:2] for group in banned} - standing
        self._instead: dict[str, tuple[str, ...]] = {}  # of files that are not needed
        self._replaced: set[str] = set()

    def choose(self) -> Choice | None:
        """Return the files that stay."""
        self._settle_merges()
        lasts = self._settle_commits()
        if not self._found.proved <= self._kept | self._replaced:
            return None
        return Choice(frozenset(self._kept), lasts)

    def _settle_merges(self) -> None:
        """Take of each file and those that it holds instead the one or the others."""
        files = self._found.files
        parts: dict[tuple[Group, str], list[str]] = defaultdict(list)
        for key in sorted(self._kept - self._found.proved):
            if files[key].header.replaces:
                parts[files[key].group, files[key].name.table].append(key)
        for (_, table), keys in sorted(parts.items()):
            sources = tuple(
                source
                for source in files[keys[0]].header.replaces
                if (name := layout.parse_table_file(source)) is not None and name.table == table
            )
            if all(map(self._is_available, sources)):
                self._kept.difference_update(keys)
                self._instead.update(dict.fromkeys(keys, sources))
            else:
                for source in sources:
                    self._drop(source)

    def _is_available(self, key: str) -> bool:
        """Tell whether the rows of a file are in others that are kept, or to come from segments."""
        if key in self._instead:
            return all(map(self._is_available, self._instead[key]))
        name = layout.parse_table_file(key)
        is_undone = name is not None and (name.number, name.experiment_id) in self._undone
        return key in self._kept or is_undone

    def _drop(self, key: str) -> None:
        """Leave a file out, or those that are taken instead of it."""
        self._replaced.add(key)
        self._kept.discard(key)
        for source in self._instead.pop(key, ()):
            self._drop(source)

    def _settle_commits(self) -> Lasts:
        """Take the commits whose rows follow each other; return the watermarks."""
        commits: dict[Group, list[Surveyed]] = defaultdict(list)
        lasts: Lasts = {}
        for key in sorted(self._kept | self._replaced & self._found.files.keys()):
            each = self._found.files[key]
            if each.header.inputs and key not in self._found.proved:
                commits[each.group].append(each)
            elif key in self._kept:
                _advance(lasts, each)
        unfinished = []
        for _, files in sorted(commits.items()):
            ends = [each for each in files if each.name.table == WRITERS.name]
            if not ends:
                unfinished.append(files)
            elif ends[0].file.path in self._kept:
                if _follows(lasts, ends[0]):
                    _advance(lasts, ends[0])
                else:
                    self._kept.difference_update(each.file.path for each in files)
        for files in unfinished:
            # Its file of `writers` may have been merged; then its rows are below the watermarks.
            if not _is_below(lasts, files[0]):
                self._kept.difference_update(each.file.path for each in files)
        return lasts


def _advance(lasts: Lasts, each: Surveyed) -> None:
    for writer, last in each.lasts.items():
        stream = Stream(each.name.experiment_id, writer)
        lasts[stream] = max(last, lasts.get(stream, NOTHING_CONSUMED))


def _follows(lasts: Lasts, each: Surveyed) -> bool:
    """Tell whether the rows of a commit begin where those of the tables end."""
    experiment_id = each.name.experiment_id
    return all(
        first == lasts.get(Stream(experiment_id, writer), NOTHING_CONSUMED) + 1
        for writer, (first, _) in each.header.inputs.items()
    )


def _is_below(lasts: Lasts, each: Surveyed) -> bool:
    experiment_id = each.name.experiment_id
    return all(
        last <= lasts.get(Stream(experiment_id, writer), NOTHING_CONSUMED)
        for writer, (_, last) in each.header.inputs.items()
    )


COUNTED: Final = frozenset({METRICS.name, EVENTS.name})
"""Tables that hold each row once."""
