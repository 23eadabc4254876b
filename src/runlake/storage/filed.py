"""Rows of states in compacted files: decoded column by column, where a question asks.

A question names few keys and shows few runs, and a lake holds many of both. So rows stay in
their files until a column of them is needed, and then all files are decoded at once; of few runs
only the row groups that may hold them are. Nothing of this changes until the next compaction:
what was decoded is kept, for all snapshots until then.
"""

from __future__ import annotations

import os
import threading
from bisect import bisect_left
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, TypeVar, final

from runlake._lazy import lazy
from runlake.storage import arrays
from runlake.storage.standing import Coded, coded

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Hashable, Iterable, Sequence

    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc
    from numpy.typing import NDArray
else:
    np = lazy("numpy")
    pa = lazy("pyarrow")
    pc = lazy("pyarrow.compute")

_THREADS: Final = 4
# Of so many keys the rows are kept: those that people ask for again and again.
_KEYS_KEPT: Final = 8
_RUN, _KIND, _KEY, _CLOCK = "run_id", "kind", "key", "clock"
_Done = TypeVar("_Done")


class StateFile(Protocol):
    """A compacted file with rows of a state."""

    @property
    def experiment_id(self) -> str:
        """The partition of all its rows."""

    @property
    def rows(self) -> Sequence[int]:
        """The rows of each row group."""

    def spans(self, name: str) -> Sequence[tuple[Any, Any] | None]:
        """Return the least and greatest value of a column in each row group, where known."""

    def read(self, groups: Sequence[int], names: Sequence[str]) -> pa.Table:
        """Return some columns of some row groups, whole."""


class _Part(NamedTuple):
    """Row groups of a file; of some of them not every row is meant."""

    file: StateFile
    groups: tuple[int, ...]
    is_mixed: bool

    @property
    def row_count(self) -> int:
        return sum(self.file.rows[group] for group in self.groups)


class _Masked(NamedTuple):
    """A part, and which of its rows are meant; None where all are."""

    part: _Part
    mask: NDArray[np.bool_] | None

    @property
    def row_count(self) -> int:
        return self.part.row_count if self.mask is None else int(self.mask.sum())


class Kinds(NamedTuple):
    """Which kinds of facts are meant: those named, or all others."""

    named: frozenset[str]
    are_others: bool

    def are_all(self, span: tuple[str, str] | None) -> bool:
        """Tell whether every kind of a row group is meant."""
        if span is None or span[0] != span[1]:
            return False
        return (span[0] in self.named) != self.are_others

    def may_occur(self, span: tuple[str, str] | None) -> bool:
        """Tell whether a kind that is meant may be in a row group."""
        if span is None:
            return True
        if self.are_others:
            return span[0] != span[1] or span[0] not in self.named
        return any(span[0] <= kind <= span[1] for kind in self.named)

    def flags(self, column: pa.ChunkedArray[Any]) -> NDArray[np.bool_]:
        """Tell of each row whether it is meant."""
        found = are_among(column, arrays.strings(sorted(self.named)))
        return ~found if self.are_others else found


@final
class Filed:
    """Rows of facts or summaries in compacted files. Threads and snapshots may share it.

    Attributes:
        schema: the columns.
    """

    def __init__(
        self, schema: pa.Schema, files: Iterable[StateFile] = (), *, hidden: Collection[str] = ()
    ) -> None:
        """Decode nothing yet.

        Args:
            schema: the columns.
            files: with rows of these columns.
            hidden: runs whose rows are left out.
        """
        self.schema = schema
        self._kinds: Kinds | None = None
        self._wanted: tuple[str, pa.StringArray] | None = None
        self._hidden = tuple(sorted(hidden))
        self._parts = tuple(self._part(file, range(len(file.rows))) for file in files if file.rows)
        self._kept: dict[str, pa.ChunkedArray[Any]] = {}
        self._coded: dict[str, Coded] = {}
        self._masks: tuple[_Masked, ...] | None = None
        self._once: dict[Hashable, Any] = {}
        self._of_key: dict[str, Filed] = {}
        self._lock = threading.RLock()

    @property
    def num_rows(self) -> int:
        """How many rows there are."""
        return sum(masked.row_count for masked in self._masked())

    @property
    def is_empty(self) -> bool:
        """Whether there are no files with any rows; nothing is decoded to tell."""
        return not self._parts

    def load(self, names: Sequence[str]) -> list[pa.ChunkedArray[Any]]:
        """Return columns; what is not decoded yet is so in one pass.

        Raises:
            FormatError: a file is damaged.
        """
        with self._lock:
            missing = [name for name in names if name not in self._kept]
            if missing:
                self._kept |= dict(zip(missing, self._read(missing), strict=True))
            return [self._kept[name] for name in names]

    def has(self, name: str) -> bool:
        """Tell whether a column is decoded already."""
        return name in self._kept

    def coded(self, name: str) -> Coded:
        """Return a column of texts as numbers."""
        with self._lock:
            if name not in self._coded:
                self._coded[name] = coded(self.load([name])[0])
            return self._coded[name]

    def let_go(self) -> None:
        """Forget what is decoded: it is decoded again where it is asked for."""
        with self._lock:
            self._kept.clear()
            self._coded.clear()

    def once(self, name: Hashable, make: Callable[[], _Done]) -> _Done:
        """Return what `make` returned the first time, for as long as these rows are asked for.

        Args:
            name: says what it is.
            make: makes it; a second thread waits for the first.
        """
        with self._lock:
            if name not in self._once:
                self._once[name] = make()
            done: _Done = self._once[name]
            return done

    def of_kinds(self, kinds: Kinds) -> Filed:
        """Return the facts of some kinds, from row groups that may hold one."""
        found = Filed(self.schema, hidden=self._hidden)
        found._kinds = kinds
        parts = []
        for of in (part.file for part in self._parts):
            spans = dict(enumerate(of.spans(_KIND)))
            there = [group for group in spans if kinds.may_occur(spans[group])]
            pure = [group for group in there if kinds.are_all(spans[group])]
            mixed = tuple(group for group in there if not kinds.are_all(spans[group]))
            parts += [found._part(of, pure)] if pure else []
            parts += [_Part(of, mixed, is_mixed=True)] if mixed else []
        found._parts = tuple(parts)
        return found

    def of_runs(self, run_ids: pa.StringArray) -> Filed:
        """Return the rows of some runs, from row groups that hold one.

        Args:
            run_ids: which runs.
        """
        texts: list[Any] = run_ids.to_pylist()
        rising = sorted(texts)
        parts = []
        for part in self._parts:
            spans = part.file.spans(_RUN)
            groups = tuple(group for group in part.groups if _meets(rising, spans[group]))
            parts += [part._replace(groups=groups)] if groups else []
        return self._only(parts, _RUN, run_ids)

    def of_key(self, key: str) -> Filed:
        """Return the rows of one key; of the last few keys they are kept."""
        with self._lock:
            found = self._of_key.pop(key, None)
            if found is None:
                found = self._only(self._parts, _KEY, arrays.strings([key]))
            self._of_key[key] = found
            while len(self._of_key) > _KEYS_KEPT:
                del self._of_key[next(iter(self._of_key))]
            return found

    def homes(self) -> list[tuple[str, pa.StringArray]]:
        """Return of each partition runs that occur in it, some of them several times.

        Runs may be among them that only rows of other kinds name.
        """
        ends = np.cumsum([masked.row_count for masked in self._masked()], dtype=np.int64)
        files = [masked.part.file.experiment_id for masked in self._masked()]
        found: list[tuple[str, pa.StringArray]] = []
        start = 0
        for each in self.load([_RUN])[0].chunks:
            chunk: Any = each
            if len(chunk):
                texts = chunk.dictionary
                if self._wanted is not None:
                    texts = arrays.named(texts, arrays.values(chunk.indices))
                found.append((files[int(np.searchsorted(ends, start, "right"))], texts))
            start += len(chunk)
        return found

    def least_clocks(self) -> dict[str, int]:
        """Return the least clock of each partition that has rows."""
        found: dict[str, int] = {}
        for masked in self._masked():
            part, known = masked.part, _of(masked.part, _CLOCK)
            if masked.mask is None and None not in known:
                clocks = [span[0] for span in known]
            else:
                (column,) = _meant(masked, [_CLOCK]).columns
                clocks = [int(arrays.values(chunk).min()) for chunk in column.chunks if len(chunk)]
            home = part.file.experiment_id
            for clock in clocks:
                found[home] = min(clock, found.get(home, clock))
        return found

    def _only(self, parts: Iterable[_Part], name: str, texts: pa.StringArray) -> Filed:
        """Return the rows of some row groups with one of some texts in a column."""
        found = Filed(self.schema, hidden=self._hidden)
        found._kinds, found._wanted = self._kinds, (name, texts)
        found._parts = tuple(parts)
        return found

    def _part(self, file: StateFile, groups: Iterable[int]) -> _Part:
        """Return whole row groups, from which hidden runs are left out if they may be there."""
        chosen, is_mixed = tuple(groups), False
        if self._hidden:
            spans = file.spans(_RUN)
            is_mixed = any(_meets(self._hidden, spans[group]) for group in chosen)
        return _Part(file, chosen, is_mixed)

    def _read(self, names: Sequence[str]) -> list[pa.ChunkedArray[Any]]:
        tables = [*self._each(lambda part: _meant(part, names), self._masked())]
        found = []
        for name in names:
            chunks = [chunk for table in tables for chunk in table[name].chunks]
            kind = self.schema.field(name).type
            # Of no chunk at all Arrow makes an array in a way that imports pandas.
            found.append(pa.chunked_array(chunks or [pa.nulls(0, kind)], kind))
        return found

    def _masked(self) -> tuple[_Masked, ...]:
        """Return the parts with the rows that are meant."""
        with self._lock:
            if self._masks is None:
                self._masks = tuple(self._each(self._mask, self._parts))
            return tuple(each for each in self._masks if each.part.groups)

    def _mask(self, part: _Part) -> _Masked:
        """Tell which rows of a part are meant; of row groups without any none is read again."""
        if self._wanted is None and not part.is_mixed:
            return _Masked(part, None)
        kinds = self._kinds
        if kinds is not None and all(map(kinds.are_all, _of(part, _KIND))):
            kinds = None
        is_hiding = bool(self._hidden) and any(
            _meets(self._hidden, span) for span in _of(part, _RUN)
        )
        needed = [_KIND] if kinds is not None else []
        needed += [_RUN] if is_hiding else []
        if self._wanted is not None and self._wanted[0] not in needed:
            needed.append(self._wanted[0])
        table = part.file.read(part.groups, needed)
        shown = np.ones(table.num_rows, bool)
        if kinds is not None:
            shown &= kinds.flags(table[_KIND])
        if is_hiding:
            shown &= ~are_among(table[_RUN], arrays.strings(self._hidden))
        if self._wanted is not None:
            shown &= are_among(table[self._wanted[0]], self._wanted[1])
        ends = np.cumsum([part.file.rows[group] for group in part.groups])
        cut = np.split(shown, ends[:-1])
        kept = [place for place, flags in enumerate(cut) if flags.any()]
        groups = tuple(part.groups[place] for place in kept)
        mask = np.concatenate([cut[place] for place in kept]) if kept else shown[:0]
        return _Masked(part._replace(groups=groups), mask)

    def _each(self, do: Callable[[Any], _Done], parts: Sequence[Any]) -> list[_Done]:
        """Do something with each part, by several threads: decoding needs no interpreter."""
        if len(parts) < 2:  # noqa: PLR2004 - nothing to share out
            return [do(part) for part in parts]
        with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as pool:
            return list(pool.map(do, parts))


def _meant(masked: _Masked, names: Sequence[str]) -> pa.Table:
    """Read columns of the rows that are meant."""
    table = masked.part.file.read(masked.part.groups, names)
    return table if masked.mask is None else table.filter(arrays.flags(masked.mask))


def _of(part: _Part, name: str) -> list[Any]:
    spans = part.file.spans(name)
    return [spans[group] for group in part.groups]


def are_among(column: pa.ChunkedArray[Any], texts: pa.StringArray) -> NDArray[np.bool_]:
    """Tell of each row of numbered texts whether it is one of some texts."""
    found = []
    for each in column.chunks:
        chunk: Any = each
        known = chunk.dictionary
        flags = arrays.truths(pc.is_in(known, value_set=texts))
        codes = arrays.values(chunk.indices)
        found.append(flags[codes] if flags.any() else np.zeros(len(codes), bool))
    return np.concatenate(found) if found else np.zeros(0, bool)


def _meets(rising: Sequence[str], span: tuple[str, str] | None) -> bool:
    """Tell whether one of some texts, which rise, may be in a row group."""
    if span is None:
        return True
    at = bisect_left(rising, span[0])
    return at < len(rising) and rising[at] <= span[1]
