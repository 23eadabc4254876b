"""How facts fold into runs: one row for each, whole or of some runs only.

Every rule of `runlake.query.folded` on runs looks at the facts of one run and at who wrote them.
So the runs that a compaction has put into files are folded once, as if nobody wrote any more;
and a new snapshot folds only those that its live segments name, and those of writers that are
still there.
"""

from __future__ import annotations

from bisect import bisect_left
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast, final

from runlake import schema
from runlake._lazy import lazy
from runlake.query.facts import Facts, Writers
from runlake.query.held import Selected, chosen
from runlake.query.words import fold_words
from runlake.storage import arrays
from runlake.storage.standing import begins, places_in, standing
from runlake.storage.state import MODEL_KINDS
from runlake.storage.states import StateRows

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc
    from numpy.typing import NDArray
else:
    np = lazy("numpy")
    pa = lazy("pyarrow")
    pc = lazy("pyarrow.compute")

HELD: Final = (schema.PARAM, schema.TAG, schema.INPUT)
"""Kinds of which a run may have any number; they are read where a question needs them."""
_SOURCE_TAG: Final = "mlflow.source.name"
_NEVER: Final = 2**63 - 1
# Where more of the runs are to be folded again, all are: to put them among the others costs too.
_FEW: Final = 4


class Said(NamedTuple):
    """What is said of runs.

    Attributes:
        spoken: facts of all kinds that a run has few of.
        held: those of the other kinds, by kind.
    """

    spoken: StateRows
    held: Mapping[str, StateRows]

    @classmethod
    def of(cls, facts: StateRows) -> Said:
        """Return what facts say of all their runs."""
        spoken = facts.of_kinds({*HELD, *MODEL_KINDS}, but=True)
        return cls(spoken, {kind: facts.of_kinds({kind}) for kind in HELD})

    def again(self, run_ids: pa.StringArray) -> Said:
        """Return all live rows, and of compacted files those of some runs."""

        def few(rows: StateRows) -> StateRows:
            return rows.beside(rows.filed.of_runs(run_ids))

        return Said(few(self.spoken), {kind: few(rows) for kind, rows in self.held.items()})

    def filed(self) -> Said:
        """Return what compacted files say; no `empty_table`, which imports pandas if there."""

        def above(rows: StateRows) -> StateRows:
            return StateRows(pa.Table.from_batches([], rows.schema), rows.filed)

        return Said(above(self.spoken), {kind: above(rows) for kind, rows in self.held.items()})

    def live_runs(self) -> pa.StringArray:
        """Return the runs that live rows name."""
        named: list[Any] = [
            rows.live(["run_id"])[0].unique() for rows in (self.spoken, *self.held.values())
        ]
        texts: Any = pa.chunked_array([each.cast(pa.string()) for each in named]).unique()
        return cast("pa.StringArray", texts)


class Sayers(NamedTuple):
    """Who said something of which runs.

    Attributes:
        writers: whoever did.
        closed: those of them that said that they end.
        run_ids: the runs.
        pairs: shape (2, n), the place of a run in `run_ids`, and of a writer of it in `writers`.
    """

    writers: pa.StringArray
    closed: pa.StringArray
    run_ids: pa.StringArray
    pairs: tuple[NDArray[np.int64], NDArray[np.int32]]

    def runs_of(self, writers: pa.StringArray) -> pa.StringArray:
        """Return the runs of which some writers said something."""
        runs, sayers = self.pairs
        is_meant = arrays.truths(pc.is_in(self.writers, value_set=writers))
        return arrays.named(self.run_ids, runs[is_meant[sayers]])


class Moved(NamedTuple):
    """Where runs of compacted files stand among all runs: to look each up anew would take longer.

    Attributes:
        run_ids: the runs of compacted files, in their order.
        places: shape (n + 1,), the place of each among all runs; the last is that of no run, -1.
        others: runs that were folded again.
        other_places: their places.
    """

    run_ids: pa.StringArray
    places: NDArray[np.int32]
    others: pa.StringArray
    other_places: NDArray[np.int32]

    def places_of(self, rows: StateRows) -> NDArray[np.int32]:
        """Return the place of each run of `rows.coded("run_id")`; -1 where no fact names it."""
        of_files = rows.filed.coded("run_id").values
        # Other files of facts may come while those of summaries stay.
        last: list[tuple[pa.StringArray, NDArray[np.int32]]] = rows.filed.once("places", list)
        known = next(iter(last), None)
        if known is None or known[0] is not self.run_ids:
            known = self.run_ids, places_in(of_files, self.run_ids)
            last[:] = [known]
        old = known[1]
        texts: Any = rows.coded("run_id").values
        # Of a run whose metrics are in files, all facts may be in live segments.
        strange = np.append(np.flatnonzero(old < 0), np.arange(len(of_files), len(texts)))
        places = np.append(self.places[old], np.full(len(texts) - len(old), -1, np.int32))
        found = places_in(texts.take(arrays.numbers(strange)), self.others)
        places[strange] = np.append(self.other_places, np.int32(-1))[found]
        return places


class FoldedRuns(NamedTuple):
    """What facts say of runs.

    Attributes:
        runs: one row for each run, see `runlake.query.folded.Folded.runs`.
        births: the earliest clock of each experiment that has runs.
        deletions: the runs that were deleted one by one, and when: `run_id`, `clock`.
        moved: where those of compacted files stand; None where these were not folded alone.
    """

    runs: pa.Table
    births: dict[str, int]
    deletions: pa.Table
    moved: Moved | None = None

    @property
    def run_ids(self) -> pa.StringArray:
        """The runs, by place."""
        return cast("pa.StringArray", arrays.whole(self.runs["run_id"]))

    def places_of(self, rows: StateRows) -> NDArray[np.int32]:
        """Return the place of each run of `rows.coded("run_id")`; -1 where no fact names it."""
        if self.moved is not None:
            return self.moved.places_of(rows)
        return places_in(rows.coded("run_id").values, self.run_ids)


def fold_runs(facts: StateRows, fresh: pa.StringArray) -> FoldedRuns:
    """Fold the runs of a snapshot; what was compacted before it only once.

    Args:
        facts: of the snapshot.
        fresh: the writers that put an object a short while ago.

    Returns:
        What they say of each run.
    """
    said, nobody = Said.of(facts), arrays.strings([])
    live = facts.live_count
    if facts.filed.is_empty or _FEW * live > facts.filed.num_rows:
        return _Fold(said, fresh, nobody).folded

    def fold_filed() -> tuple[FoldedRuns, Sayers]:
        fold = _Fold(said.filed(), nobody, nobody)
        folded = fold.folded
        run_ids = folded.run_ids
        stay = np.append(np.arange(len(run_ids), dtype=np.int32), np.int32(-1))
        moved = Moved(run_ids, stay, nobody, np.zeros(0, np.int32))
        sayers = fold.sayers
        said.spoken.filed.let_go()  # from now on only of few runs
        return folded._replace(moved=moved), sayers

    base, sayers = facts.filed.once("runs", fold_filed)
    named: Any = pa.concat_arrays([said.live_runs(), sayers.runs_of(fresh)])
    again: pa.StringArray = named.filter(pc.not_equal(named, arrays.text(""))).unique()
    if not len(again):
        return base
    if _FEW * len(again) > base.runs.num_rows:
        return _Fold(said, fresh, nobody).folded
    return _merged(base, _Fold(said.again(again), fresh, sayers.closed).folded, again)


def _merged(base: FoldedRuns, few: FoldedRuns, again: pa.StringArray) -> FoldedRuns:
    """Put runs that were folded again among the others."""
    known, new = base.run_ids, few.run_ids
    old = places_in(new, known)
    stays = np.delete(np.arange(len(known)), old[old >= 0])
    at = _places_among(base.runs, stays, few.runs)
    order = np.insert(stays, at, np.arange(len(new)) + len(known))
    places = np.empty(len(known) + len(new), np.int32)
    places[order] = np.arange(len(order), dtype=np.int32)
    new_places = places[len(known) :]
    places[old[old >= 0]] = new_places[old >= 0]
    places = np.append(places[: len(known)], np.int32(-1))
    runs = pa.concat_tables([base.runs, few.runs]).unify_dictionaries().combine_chunks()
    births = dict(base.births)
    for home, clock in few.births.items():
        births[home] = min(clock, births.get(home, clock))
    is_again = pc.is_in(base.deletions["run_id"], value_set=again)
    others = base.deletions.filter(pc.invert(is_again))
    return FoldedRuns(
        runs.take(arrays.numbers(order)),
        births,
        pa.concat_tables([others, few.deletions]),
        Moved(known, places, new, new_places),
    )


def _places_among(runs: pa.Table, stays: NDArray[np.int64], new: pa.Table) -> NDArray[np.int64]:
    """Return before which of the runs that stay each new one stands; both are in their order."""
    # From the newest to the oldest: `~` turns the order of all numbers round.
    starts, others = (~arrays.values(of["start_us"].combine_chunks()) for of in (runs, new))
    starts = starts[stays]
    at, ends = np.searchsorted(starts, others), np.searchsorted(starts, others, side="right")
    for row in np.flatnonzero(at < ends).tolist():
        alike: Any = runs["run_id"].take(arrays.numbers(stays[at[row] : ends[row]]))
        at[row] += bisect_left(alike.to_pylist(), new["run_id"][row].as_py())
    return at


@final
class _Fold:
    """All runs that some facts name, each part at its first use."""

    def __init__(self, said: Said, fresh: pa.StringArray, closed: pa.StringArray) -> None:
        """Fold nothing yet.

        Args:
            said: the facts.
            fresh: the writers that put an object a short while ago.
            closed: writers of whom other facts say that they have ended.
        """
        self._said, self._fresh, self._closed = said, fresh, closed

    @property
    def folded(self) -> FoldedRuns:
        """What the facts say of runs."""
        return FoldedRuns(self._ordered, self._births, self._deletions)

    @property
    def sayers(self) -> Sayers:
        """Who says it."""
        facts, heads = self._facts, self._heads
        writers = facts.writers
        closed = arrays.named(writers.values, writers.codes[facts.rows(schema.CLOSE)])
        pairs = facts.runs_of(heads), facts.writers.codes[heads]
        return Sayers(facts.writers.values, closed, facts.runs.values, pairs)

    @property
    def _births(self) -> dict[str, int]:
        facts = self._facts
        homes = facts.homes
        is_run = facts.runs.codes != facts.runs.code_of("")
        clocks = np.full(len(homes.values), _NEVER)
        np.minimum.at(clocks, homes.codes[is_run], facts.clocks[is_run])
        names: list[Any] = homes.values.to_pylist()
        found: dict[str, int] = dict(zip(names, clocks.tolist(), strict=True))
        for rows in self._said.held.values():
            for home, clock in rows.least_clocks().items():
                if home != schema.RESERVED_PARTITION:
                    found[home] = min(clock, found.get(home, _NEVER))
        return {home: clock for home, clock in found.items() if clock < _NEVER}

    @property
    def _deletions(self) -> pa.Table:
        facts = self._facts
        rows = np.concatenate([facts.rows(schema.DELETE), facts.rows(schema.RESTORE)])
        rows = facts.stand(rows, facts.runs_of(rows), latest=True)
        rows = rows[facts.kinds.codes[rows] == facts.kinds.code_of(schema.DELETE)]
        run_ids: Any = facts.runs.values.take(arrays.numbers(facts.runs_of(rows)))
        return pa.table({"run_id": run_ids, "clock": arrays.numbers(facts.clocks[rows])})

    @cached_property
    def _facts(self) -> Facts:
        """What runs say of themselves, and of some runs all facts there are."""
        spoken = self._said.spoken
        spoken.load(spoken.schema.names)  # in one pass
        wanted = self._doubtful(spoken)
        rows = spoken
        if len(wanted):
            more = (held.of_runs(wanted) for held in self._said.held.values())
            rows = StateRows(pa.concat_tables([each.table() for each in (spoken, *more)]))
        homes = rows.coded("experiment_id")
        reserved = homes.code_of(schema.RESERVED_PARTITION)
        if reserved >= 0:
            keep: Any = arrays.numbers(np.flatnonzero(homes.codes != reserved))
            rows = StateRows(rows.table().take(keep))
        rows.load(rows.schema.names)
        writers, kinds = rows.coded("writer"), rows.coded("kind")
        counts = np.bincount(kinds.codes, minlength=len(kinds.values))
        return Facts(
            homes=rows.coded("experiment_id"),
            runs=rows.coded("run_id"),
            kinds=kinds,
            keys=rows.coded("key"),
            writers=writers,
            writer_ranks=writers.ranks(),
            # Small numbers are sorted by counting them.
            by_kind=np.argsort(kinds.codes.astype(np.uint16), kind="stable"),
            kind_starts=np.concatenate([[0], np.cumsum(counts)]),
            clocks=arrays.values(rows.array("clock")),
            seqs=arrays.values(rows.array("seq")),
            numbers=rows.array("num"),
            texts=cast("pa.StringArray", rows.array("str")),
        )

    def _doubtful(self, spoken: StateRows) -> pa.StringArray:
        """Return the runs of which all facts must be known to say where they belong.

        That is the partition of the earliest, so one partition is answer enough. Where a run
        never said when it began, or how it stands, its other facts count too.

        Args:
            spoken: what runs say of themselves.
        """
        runs, homes = spoken.coded("run_id"), spoken.coded("experiment_id")
        home_codes = {name: code for code, name in enumerate(homes.values.to_pylist())}
        home = np.full(len(runs.values), -1)
        home[runs.codes] = homes.codes
        is_doubtful = ~_has(spoken, schema.STATUS) | ~_has(spoken, schema.RUN, schema.RUN_START)
        is_doubtful[runs.codes[home[runs.codes] != homes.codes]] = True
        unknown: list[pa.StringArray] = []
        for rows in self._said.held.values():
            said = rows.homes()
            if not said:
                continue
            others: Any = pa.concat_arrays([texts for _, texts in said])
            counts = [len(texts) for _, texts in said]
            codes = [home_codes.setdefault(name, len(home_codes)) for name, _ in said]
            known: Any = pc.index_in(others, value_set=runs.values)
            is_known = arrays.is_valid(known)
            if not is_known.all():
                unknown.append(others.filter(arrays.flags(~is_known)))
            of = arrays.values(known)[is_known]
            is_doubtful[of[home[of] != np.repeat(codes, counts)[is_known]]] = True
        nobody = runs.code_of("")
        if nobody >= 0:
            is_doubtful[nobody] = False
        strange: Any = runs.values.filter(arrays.flags(is_doubtful))
        found: Any = pa.concat_arrays([strange, *unknown])
        doubtful: pa.StringArray = found.unique() if unknown else found
        return doubtful

    @cached_property
    def _writers(self) -> Writers:
        facts = self._facts
        has_fresh = arrays.truths(pc.is_in(facts.writers.values, value_set=self._fresh))
        is_open = has_fresh & ~arrays.truths(pc.is_in(facts.writers.values, value_set=self._closed))
        is_open[facts.writers.codes[facts.rows(schema.CLOSE)]] = False
        return Writers(is_fresh=has_fresh, is_open=is_open)

    @cached_property
    def _heads(self) -> NDArray[np.int64]:
        """Where a stretch of facts of one run by one writer begins."""
        facts = self._facts
        return np.flatnonzero(begins(facts.runs.codes) | begins(facts.writers.codes))

    @cached_property
    def _ordered(self) -> pa.Table:
        """Return the runs by place."""
        facts = self._facts
        columns = {"run_id": facts.runs.values} | self._homes() | self._attributes()
        columns |= fold_words(self._facts, self._writers, is_fresh=columns.pop("is_fresh"))
        clock = columns.pop("clock")
        columns["start_us"] = pc.coalesce(columns["start_us"], clock)
        table = pa.table(columns)
        order: Any = pc.sort_indices(
            table, sort_keys=[("start_us", "descending"), ("run_id", "ascending")]
        )
        # What writers say of themselves names no run.
        order = arrays.values(order.cast(pa.int64()))
        order = order[order != facts.runs.code_of("")]
        return table.take(arrays.numbers(order))

    def _homes(self) -> dict[str, Any]:
        """Return where each run belongs, its earliest clock, and whether a writer is fresh."""
        # Of each stretch the least clock will do.
        facts, heads = self._facts, self._heads
        clocks = np.minimum.reduceat(facts.clocks, heads) if len(heads) else facts.clocks
        writers, groups = facts.writers.codes[heads], facts.runs_of(heads)
        chosen = standing(groups, [clocks, facts.writer_ranks[writers]], latest=False)
        chosen = chosen[np.argsort(groups[chosen])]
        homes = arrays.numbers(facts.homes.codes[heads[chosen]])
        return {
            "experiment_id": pa.DictionaryArray.from_arrays(homes, facts.homes.values),
            "clock": arrays.numbers(clocks[chosen]),
            "is_fresh": np.bincount(groups, weights=self._writers.is_fresh[writers]) > 0,
        }

    def _attributes(self) -> dict[str, Any]:
        """Return what runs say of themselves, by run code."""
        facts = self._facts
        flags = np.concatenate([facts.rows(schema.DELETE), facts.rows(schema.RESTORE)])
        flags = facts.stand(flags, facts.runs_of(flags), latest=True)
        is_deleted = np.zeros(len(facts.runs.values), bool)
        deletions = facts.kinds.codes[flags] == facts.kinds.code_of(schema.DELETE)
        is_deleted[facts.runs.codes[flags]] = deletions
        start = self._attribute(schema.RUN_START, column="num").cast(pa.int64(), safe=False)
        return {
            "run_name": pc.coalesce(
                self._attribute(schema.RUN_NAME, latest=True),
                self._attribute(schema.RUN_AUTO_NAME),
            ),
            "start_us": start,
            "user_id": self._attribute(schema.RUN_USER),
            "source_name": self._sources(),
            "parent_run_id": self._attribute(schema.RUN_PARENT),
            "is_deleted": arrays.flags(is_deleted),
        }

    def _attribute(
        self, key: str, *, kind: str = schema.RUN, column: str = "str", latest: bool = False
    ) -> pa.Array[Any]:
        """Return one attribute by run code, null where nothing was said."""
        facts = self._facts
        rows = facts.rows(kind, key=key)
        rows = facts.stand(rows, facts.runs_of(rows), latest=latest)
        return self._facts.spread(column, rows)

    def _sources(self) -> pa.Array[Any]:
        """Return what started each run: as it said itself, else as a tag has it."""
        said = self._attribute(schema.RUN_SOURCE)
        tags = self._said.held[schema.TAG]
        if not said.null_count or tags.coded("key").code_of(_SOURCE_TAG) < 0:
            return said
        keys = tags.coded("key")
        rows = np.flatnonzero(keys.codes == keys.code_of(_SOURCE_TAG))
        tagged = Selected(tags, rows)
        runs = tagged.codes("run_id")
        stood = chosen(tagged, runs.astype(np.int64), latest=True)
        stood = np.arange(len(runs)) if stood is None else stood
        known: Any = pc.index_in(self._facts.runs.values, value_set=tags.coded("run_id").values)
        places = np.full(len(tags.coded("run_id").values), -1, np.int64)
        places[runs[stood]] = stood
        at = np.where(arrays.is_valid(known), places[arrays.values(known)], -1)
        texts = tagged.column("str").take(arrays.numbers(np.maximum(at, 0), mask=at < 0))
        return pc.coalesce(said, texts)


def _has(rows: StateRows, kind: str, key: str | None = None) -> NDArray[np.bool_]:
    """Tell of each run whether it said something of a kind and key; of a number, that it is one."""
    runs, kinds = rows.coded("run_id"), rows.coded("kind")
    is_there = kinds.codes == kinds.code_of(kind)
    if key is not None:
        keys = rows.coded("key")
        is_there &= keys.codes == keys.code_of(key)
        is_there &= arrays.is_valid(rows.array("num"))
    found = np.zeros(len(runs.values), bool)
    found[runs.codes[is_there]] = True
    return found
