"""Which compacted files are to be merged, so that few of them stay however many commits come.

The files of one commit are a *sorted run*: no two of them overlap. Sorted runs of about one
size are merged once there are `fan` of them, so that a row is written again a number of times
that grows with the logarithm of the table only. A large file that overlaps no other is settled
and left alone: what arrives in the order of run ids is then written twice at most.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log
from typing import TYPE_CHECKING, Final

from runlake.storage import layout
from runlake.upkeep.table_writer import FILE_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from runlake.storage.manifest import TableFile
    from runlake.storage.table_files import Table

SETTLED_BYTES: Final = FILE_BYTES // 2
"""A file of this size is left alone as long as it overlaps no other."""
_LEAST_BYTES: Final = 64 << 10
# Of a table that is not sorted by owners first nothing tells in which order the files of a commit
# follow one another, so each is read by itself. So many row groups of facts take no more memory
# than one of points; sorted runs of more files than fit so are left as they are.
_LIGHT: Final = 6


@dataclass(frozen=True, slots=True)
class SortedRun:
    """Files of one commit that are not settled, in the order of their rows."""

    number: int
    files: tuple[TableFile, ...]

    @property
    def size_bytes(self) -> int:
        """Their length together."""
        return sum(file.size_bytes for file in self.files)


def due(
    table: Table,
    files: Sequence[TableFile],
    *,
    most_runs: int,
    most_bytes: int | None = None,
    is_full: bool = False,
) -> tuple[SortedRun, ...]:
    """Choose what to merge next.

    Args:
        table: which table the files are of.
        files: all of one experiment.
        most_runs: sorted runs that one merge may take.
        most_bytes: length that one merge may take; None for any.
        is_full: merge whatever is not settled, also where it is not due yet.

    Returns:
        Sorted runs, two or more, the smallest first; none if nothing is due.
    """
    runs = sorted(sorted_runs(files), key=lambda run: (run.size_bytes, run.number))
    levels = [_level(run.size_bytes, table.fan) for run in runs]
    crowded = [level for level in levels if levels.count(level) >= table.fan]
    if not crowded and not is_full:
        return ()
    chosen: list[SortedRun] = []
    size = weight = 0
    for run, level in zip(runs, levels, strict=True):
        size += run.size_bytes
        weight += 1 if table.is_by_owner else -(-len(run.files) // _LIGHT)
        is_wanted = is_full or level <= min(crowded)
        if not is_wanted or weight > most_runs or (most_bytes and size > most_bytes):
            break
        chosen.append(run)
    return tuple(chosen) if len(chosen) > 1 else ()


def sources(table: Table, runs: Iterable[SortedRun]) -> list[SortedRun]:
    """Return sorted runs as they are to be read: each part's rows are in the table's order.

    Args:
        table: which table the files are of.
        runs: of this table.
    """
    if table.is_by_owner:
        return list(runs)
    return [SortedRun(run.number, (file,)) for run in runs for file in run.files]


def sorted_runs(files: Sequence[TableFile]) -> list[SortedRun]:
    """Return what is not settled, by commit."""
    settled = _settled(files)
    return runs_of(file for file in files if file.path not in settled)


def runs_of(files: Iterable[TableFile]) -> list[SortedRun]:
    """Return files by the commit that wrote them, each in the order of their rows."""
    by_number: dict[int, list[TableFile]] = {}
    for file in files:
        by_number.setdefault(_number(file), []).append(file)
    return [
        SortedRun(number, tuple(sorted(of, key=lambda file: (file.min_run, file.max_run))))
        for number, of in sorted(by_number.items())
    ]


def _settled(files: Sequence[TableFile]) -> set[str]:
    """Return the large files that overlap none of another sorted run."""
    rising = sorted(files, key=lambda file: (file.min_run, file.max_run))
    overlapping = _overlapping_before(rising) | _overlapping_behind(rising)
    return {
        file.path
        for file in files
        if file.size_bytes >= SETTLED_BYTES and file.path not in overlapping
    }


def _overlapping_before(rising: Iterable[TableFile]) -> set[str]:
    """Return the files into which one that begins before them reaches, of another commit."""
    found: set[str] = set()
    reach: dict[int, str] = {}  # of the two commits that reach farthest
    for file in rising:
        number = _number(file)
        if any(end >= file.min_run for other, end in reach.items() if other != number):
            found.add(file.path)
        reach[number] = max(file.max_run, reach.get(number, ""))
        reach = dict(sorted(reach.items(), key=lambda item: item[1])[-2:])
    return found


def _overlapping_behind(rising: Sequence[TableFile]) -> set[str]:
    """Return the files that reach into one that begins behind them, of another commit."""
    found: set[str] = set()
    begin: dict[int, str] = {}  # of the two commits that begin next
    for file in reversed(rising):
        number = _number(file)
        if any(start <= file.max_run for other, start in begin.items() if other != number):
            found.add(file.path)
        begin[number] = file.min_run
        begin = dict(sorted(begin.items(), key=lambda item: item[1])[:2])
    return found


def _level(size_bytes: int, fan: int) -> int:
    return int(log(max(1.0, size_bytes / _LEAST_BYTES), fan))


def _number(file: TableFile) -> int:
    name = layout.parse_table_file(file.path)
    return 0 if name is None else name.number
