"""The cumulative state of runs that rides in every segment's footer.

A state is what one writer has said so far about runs: *facts* (params, tags, status, ...) and
one *summary* for each metric (last, first, min, max, count, sum). A reader that joins the
states of all writers knows every run without reading one metric point. Joining is
associative, commutative and idempotent: of the summaries of one (run, key, writer) the one
with the larger `n` stands, and of the facts of one (run, kind, key) the earliest or the
latest by (clock, writer, seq). The normative text is `docs/spec/v1.md`, "State".
"""

from __future__ import annotations

import base64
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from runlake import schema
from runlake._lazy import lazy
from runlake.errors import FormatError
from runlake.storage import arrays

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray
else:
    np = lazy("numpy")
    pa = lazy("pyarrow")

FACT_COLUMNS: Final = (
    ("run_id", "string"),
    ("kind", "string"),
    ("key", "string"),
    ("clock", "int64"),
    ("seq", "int64"),
    ("num", "float64"),
    ("str", "string"),
)
SUMMARY_COLUMNS: Final = (
    ("run_id", "string"),
    ("key", "string"),
    ("n", "int64"),
    ("sum", "float64"),
    ("nan_count", "int64"),
    ("last", "float64"),
    ("last_step", "int64"),
    ("last_time", "int64"),
    ("first", "float64"),
    ("first_step", "int64"),
    ("first_time", "int64"),
    ("min", "float64"),
    ("min_step", "int64"),
    ("min_time", "int64"),
    ("max", "float64"),
    ("max_step", "int64"),
    ("max_time", "int64"),
)

# Texts that come again and again, so often in so many rows that numbers for them save bytes.
_NUMBERED: Final = ("run_id", "kind", "key")
_MANY_ROWS: Final = 128
_OFTEN: Final = 8
# Of zstd: the others take longer, and states are hardly smaller.
_LEVEL: Final = 1
_ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"

# What runs and models say of logged models. No run exists only because they name it.
MODEL_KINDS: Final = frozenset(
    {
        schema.MODEL,
        schema.MODEL_STATUS,
        schema.MODEL_PARAM,
        schema.MODEL_TAG,
        schema.MODEL_METRIC,
        schema.MODEL_DELETE,
        schema.MODEL_INPUT,
        schema.OUTPUT,
    }
)
# Kinds whose standing value rides in the state; all others stand in the rows only.
FACT_KINDS: Final = frozenset(
    {
        schema.RUN,
        schema.PARAM,
        schema.TAG,
        schema.INPUT,
        schema.STATUS,
        schema.DELETE,
        schema.RESTORE,
        schema.CLOSE,
        *MODEL_KINDS,
    }
)
_EARLIEST: Final = frozenset({schema.PARAM, schema.MODEL, schema.MODEL_PARAM})
_SPOTS: Final = ("last", "first", "min", "max")


def _column(items: Sequence[Any], kind: str) -> pa.Array[Any]:
    """Return one column of facts."""
    if kind == "string":
        return arrays.strings(items)
    plain = np.array([0 if item is None else item for item in items], dtype=kind)
    return arrays.numbers(plain, mask=np.array([item is None for item in items], dtype=bool))


class Fact(NamedTuple):
    """The standing value of one (run, kind, key) as one writer said it."""

    clock: int
    seq: int
    num: float | None
    str: str | None


def earliest_stands(kind: str, key: str) -> bool:
    """Tell which of two facts about the same thing stands: the earliest, else the latest."""
    return kind in _EARLIEST or (kind == schema.RUN and key != schema.RUN_NAME)


@dataclass(frozen=True, slots=True)
class State:
    """One writer's contribution to some runs, as it rides in a footer.

    Attributes:
        facts: shape (f, 7), columns `FACT_COLUMNS`; clock in microseconds since 1970.
        summaries: shape (m, 17), columns `SUMMARY_COLUMNS`; one row per (run_id, key); times
            in microseconds since 1970; `min*` and `max*` are null where every value is NaN.

    What is read back has ids, kinds and keys numbered: a tenth of the memory and the work.
    """

    facts: pa.Table
    summaries: pa.Table

    def encode(self) -> tuple[bytes, bytes]:
        """Return both tables as text for a footer: base64(zstd(Arrow IPC stream))."""
        return _encode_table(self.facts), _encode_table(self.summaries)

    @classmethod
    def decode(cls, facts: bytes, summaries: bytes) -> State:
        """Read what `encode` wrote, with ids, kinds and keys numbered.

        Raises:
            FormatError: the text is damaged.
        """
        return cls(_decode_table(facts), _decode_table(summaries))

    @classmethod
    def empty(cls) -> State:
        """Return the state that says nothing."""
        return cls(fact_schema().empty_table(), summary_schema().empty_table())


def fact_schema() -> pa.Schema:
    """Return the Arrow schema of `State.facts`."""
    return pa.schema([(name, getattr(pa, kind)()) for name, kind in FACT_COLUMNS])


def summary_schema() -> pa.Schema:
    """Return the Arrow schema of `State.summaries`."""
    return pa.schema([(name, getattr(pa, kind)()) for name, kind in SUMMARY_COLUMNS])


def _numbered(table: pa.Table) -> pa.Table:
    """Return facts or summaries with ids, kinds and keys as numbered texts."""
    kind = pa.dictionary(pa.int32(), pa.string())
    for place, field in enumerate(table.schema):
        if field.name in _NUMBERED and field.type != kind:
            column: Any = table.column(place)
            column = column.cast(pa.string()).dictionary_encode()
            table = table.set_column(place, field.name, column)
    return table


def _packed(table: pa.Table) -> pa.Table:
    """Return a table with those texts numbered that come again and again, the others plain."""
    if table.num_rows < _MANY_ROWS:
        return table
    for place, field in enumerate(table.schema):
        if field.name in _NUMBERED:
            column: Any = arrays.whole(table.column(place))
            coded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
            is_often = _OFTEN * len(coded.dictionary) <= len(coded)
            column = coded if is_often else coded.cast(pa.string())
            table = table.set_column(place, field.name, column)
    return table.combine_chunks()


def _encode_table(table: pa.Table) -> bytes:
    table = _packed(table)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    codec = pa.Codec("zstd", compression_level=_LEVEL)
    return base64.b64encode(codec.compress(sink.getvalue(), asbytes=True))


def _unpacked(packed: bytes) -> pa.NativeFile:
    """Return what was compressed, by zstd as `encode` does, or by zlib as the format allows."""
    if packed.startswith(_ZSTD_MAGIC):
        return pa.CompressedInputStream(pa.BufferReader(packed), "zstd")
    return pa.BufferReader(zlib.decompress(packed))


def _decode_table(text: bytes) -> pa.Table:
    try:
        return _numbered(pa.ipc.open_stream(_unpacked(base64.b64decode(text))).read_all())
    except (ValueError, OSError, zlib.error, pa.ArrowException) as error:
        message = f"the state in a segment's footer is damaged: {error}"
        raise FormatError(message) from error


class FactBook:
    """The facts of one writer, each standing by its rule."""

    def __init__(self) -> None:
        """Start with nothing said."""
        self._runs: dict[str, dict[tuple[str, str], Fact]] = {}

    def add(self, run_id: str, kind: str, key: str, fact: Fact) -> None:
        """Take one fact in; kinds that do not ride in the state are passed over.

        Args:
            run_id: what it is about.
            kind: see `FACT_KINDS`.
            key: which param, tag or attribute.
            fact: what was said, and when.
        """
        if kind not in FACT_KINDS:
            return
        facts = self._runs.setdefault(run_id, {})
        standing = facts.get((kind, key))
        if standing is not None and earliest_stands(kind, key) == (standing[:2] <= fact[:2]):
            return
        facts[kind, key] = fact

    def status(self, run_id: str) -> str | None:
        """Return this writer's latest word on its own part of a run."""
        fact = self._runs.get(run_id, {}).get((schema.STATUS, schema.STATUS_OWN))
        return None if fact is None else fact.str

    def has_ended(self, run_id: str) -> bool:
        """Tell whether this writer's latest word of any kind is that a run has ended."""
        facts = self._runs.get(run_id, {})
        words = [
            fact
            for key in (schema.STATUS_OWN, schema.STATUS_SET)
            if (fact := facts.get((schema.STATUS, key))) is not None
        ]
        return bool(words) and max(words, key=lambda fact: fact[:2]).str in schema.ENDED

    def open_runs(self) -> set[str]:
        """Return the runs that this writer has started and not ended."""
        return {run for run in self._runs if self.status(run) in schema.OPEN}

    def open_facts(self) -> Iterator[tuple[str, Fact]]:
        """Yield the runs of `open_runs` in order, each with the word that it is open."""
        for run_id in sorted(self.open_runs()):
            yield run_id, self._runs[run_id][schema.STATUS, schema.STATUS_OWN]

    def all_runs(self) -> set[str]:
        """Return every run that has a fact."""
        return set(self._runs)

    def forget(self, run_ids: Iterable[str]) -> None:
        """Drop runs that the next footers need not carry."""
        for run_id in run_ids:
            self._runs.pop(run_id, None)

    def table(self, run_ids: Iterable[str]) -> pa.Table:
        """Return the facts of some runs, as `State.facts`."""
        rows = [
            (run_id, kind, key, *fact)
            for run_id in sorted(run_ids)
            for (kind, key), fact in self._runs.get(run_id, {}).items()
        ]
        columns: Iterable[Sequence[Any]] = zip(*rows, strict=True) if rows else [()] * 7
        made = [
            _column(column, kind) for column, (_, kind) in zip(columns, FACT_COLUMNS, strict=True)
        ]
        return pa.Table.from_arrays(made, schema=fact_schema())

    def load(self, facts: pa.Table) -> None:
        """Take in all facts of a saved state."""
        for row in facts.to_pylist():
            fact = Fact(row["clock"], row["seq"], row["num"], row["str"])
            self.add(row["run_id"], row["kind"], row["key"], fact)


class Summaries:
    """The metric summaries of one writer, one slot for each (run, key), grown in batches.

    Batches are NumPy columns, so that a million points a second cost the training little.
    """

    def __init__(self) -> None:
        """Start without slots."""
        self._size = 0
        self._columns: dict[str, NDArray[Any]] = {}
        self._grow(256)

    def _grow(self, size: int) -> None:
        for name, kind in SUMMARY_COLUMNS[2:]:
            column = np.zeros(size, dtype=kind)
            if self._size:
                column[: self._size] = self._columns[name][: self._size]
            self._columns[name] = column
        self._size = size

    def counts(self, slots: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return how many points each slot has seen."""
        if len(slots) and int(slots.max()) >= self._size:
            self._grow(max(2 * self._size, int(slots.max()) + 1))
        return self._columns["n"][slots]

    def add(
        self,
        slots: NDArray[np.int64],
        steps: NDArray[np.int64],
        times: NDArray[np.int64],
        values: NDArray[np.float64],
    ) -> None:
        """Take a batch of points in; order within the batch does not matter.

        Args:
            slots: shape (n,), the slot of each point, small numbers from 0.
            steps: shape (n,).
            times: shape (n,), microseconds since 1970.
            values: shape (n,), NaN and infinities allowed.
        """
        if not len(slots):
            return
        top = int(slots.max()) + 1
        if top > self._size:
            self._grow(max(2 * self._size, top))
        isnan = np.isnan(values)
        columns = self._columns
        for spot in _SPOTS:
            self._settle(spot, _Points(slots, steps, times, values), isnan)
        columns["n"][:top] += np.bincount(slots, minlength=top)
        columns["nan_count"][:top] += np.bincount(slots, weights=isnan, minlength=top).astype(int)
        with np.errstate(invalid="ignore"):
            finite = np.where(isnan, 0.0, values)
            columns["sum"][:top] += np.bincount(slots, weights=finite, minlength=top)

    def _settle(self, spot: str, points: _Points, isnan: NDArray[np.bool_]) -> None:
        """Find for each slot the point that now stands as its last, first, min or max."""
        columns = self._columns
        known = columns["n"]
        if spot in {"min", "max"}:
            if isnan.any():
                points = points.where(~isnan)
            known = known - columns["nan_count"]
        if not len(points.slots):
            return
        rank = points.values if spot in {"min", "max"} else points.steps
        # One pass finds the best rank of each slot; only the points that reach it are sorted.
        best = np.empty(self._size, dtype=rank.dtype)
        name = spot if spot in {"min", "max"} else f"{spot}_step"
        best[:] = np.where(known > 0, columns[name], _worst(spot, rank.dtype))
        (np.maximum if spot in {"last", "max"} else np.minimum).at(best, points.slots, rank)
        points = points.where(rank == best[points.slots])
        if not len(points.slots):
            return
        slots = np.unique(points.slots)
        # What stood before takes part only where it reaches the best rank as well.
        slots = slots[(known[slots] > 0) & (columns[name][slots] == best[slots])]
        standing = _Points(
            slots,
            columns[f"{spot}_step"][slots],
            columns[f"{spot}_time"][slots],
            columns[spot][slots],
        )
        points = points.join(standing)
        order = _order(spot, points)
        slots = points.slots[order]
        heads = order[np.flatnonzero(np.r_[True, slots[1:] != slots[:-1]])]
        winners = points.slots[heads]
        columns[spot][winners] = points.values[heads]
        columns[f"{spot}_step"][winners] = points.steps[heads]
        columns[f"{spot}_time"][winners] = points.times[heads]

    def table(self, slots: NDArray[np.int64], run_ids: list[str], keys: list[str]) -> pa.Table:
        """Return some slots as `State.summaries`, slots without points left out.

        Args:
            slots: shape (n,), the slots wanted.
            run_ids: the run of each.
            keys: the key of each.
        """
        seen = self.counts(slots) > 0
        wanted = slots[seen]
        columns: list[Any] = [
            arrays.strings([run for run, keep in zip(run_ids, seen, strict=True) if keep]),
            arrays.strings([key for key, keep in zip(keys, seen, strict=True) if keep]),
        ]
        only_nan = self._columns["n"][wanted] == self._columns["nan_count"][wanted]
        for name, _ in SUMMARY_COLUMNS[2:]:
            mask = only_nan if name.startswith(("min", "max")) else None
            columns.append(arrays.numbers(self._columns[name][wanted], mask=mask))
        return pa.Table.from_arrays(columns, schema=summary_schema())

    def load(self, summaries: pa.Table, slots: Mapping[tuple[str, str], int]) -> None:
        """Take in all summaries of a saved state; `slots` maps (run_id, key) to the slot."""
        for row in summaries.to_pylist():
            slot = slots[row["run_id"], row["key"]]
            if slot >= self._size:
                self._grow(max(2 * self._size, slot + 1))
            for name, _ in SUMMARY_COLUMNS[2:]:
                self._columns[name][slot] = row[name] if row[name] is not None else 0


@dataclass(frozen=True, slots=True)
class _Points:
    slots: NDArray[np.int64]
    steps: NDArray[np.int64]
    times: NDArray[np.int64]
    values: NDArray[np.float64]

    def where(self, keep: NDArray[np.bool_]) -> _Points:
        return _Points(self.slots[keep], self.steps[keep], self.times[keep], self.values[keep])

    def join(self, other: _Points) -> _Points:
        return _Points(
            np.concatenate([self.slots, other.slots]),
            np.concatenate([self.steps, other.steps]),
            np.concatenate([self.times, other.times]),
            np.concatenate([self.values, other.values]),
        )


def _worst(spot: str, dtype: np.dtype[Any]) -> Any:  # noqa: ANN401 - int or float as the column is
    sign = -1 if spot in {"last", "max"} else 1
    if dtype.kind == "f":
        return sign * np.inf
    return np.iinfo(np.int64).min if sign < 0 else np.iinfo(np.int64).max


def _order(spot: str, points: _Points) -> NDArray[np.int64]:
    """Sort by slot, the point that stands first.

    last is the greatest (step, time, value), NaN least in a tie; first the least; min and max
    are the earliest (step, time) that reaches the value.
    """
    if spot == "last":
        # ~x orders integers downwards like -x, and cannot overflow.
        values = np.where(np.isnan(points.values), -np.inf, points.values)
        isnan = np.isnan(points.values)
        return np.lexsort((isnan, -values, ~points.times, ~points.steps, points.slots))
    # np.lexsort puts NaN last, as the least value wants it here.
    return np.lexsort((points.values, points.times, points.steps, points.slots))


def join(states: Iterable[State]) -> State:
    """Join cumulative states of one writer: the footer of a merged segment.

    The last state alone would lose runs that ended before it began.

    Args:
        states: states of one writer's segments, in any order.

    Returns:
        What the writer has said in all of them.
    """
    book = FactBook()
    best: dict[tuple[str, str], dict[str, Any]] = {}
    for state in states:
        book.load(state.facts)
        for row in state.summaries.to_pylist():
            known = best.get((row["run_id"], row["key"]))
            if known is None or row["n"] > known["n"]:
                best[row["run_id"], row["key"]] = row
    facts = book.table(book.all_runs())
    return State(facts, pa.Table.from_pylist(list(best.values()), schema=summary_schema()))
