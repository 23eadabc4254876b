"""How appended facts fold into what runs are and hold; each part at its first use.

The rules, the same for every question:

- An order of facts is always (clock, writer, seq). Of params and run attributes the earliest
  stands; of tags, inputs, the chosen run name, deletion and status the latest. A null tag is
  gone.
- A run belongs to the experiment of its earliest fact. Its `status` is RUNNING (or SCHEDULED)
  while a writer whose own latest word is that has put an object within `stale_s`; else it is
  the latest word of all writers. A word that was set for the run as a whole outdoes all own
  words before it. `is_stale`: the status is RUNNING or SCHEDULED, and no open writer of the run
  is that fresh; of one that was set, no writer at all. A run without any word on its status
  counts as RUNNING.
- Runs stand in the order of their start, the newest first, then of their ids. A run's *place*
  in that order is how all parts name it.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, cast, final

from runlake import schema
from runlake._lazy import lazy
from runlake.query.facts import Facts, Writers
from runlake.query.held import Held, Holding, Selected
from runlake.query.homes import Home, fold_homes
from runlake.query.logged import LoggedModel, fold_models
from runlake.query.registered import FoldedModels
from runlake.query.run_facts import run_facts
from runlake.query.summaries import SummaryFold, read_columns
from runlake.query.words import fold_words
from runlake.storage import arrays
from runlake.storage.standing import occurs_once, standing
from runlake.storage.state import MODEL_KINDS
from runlake.storage.states import StateRows

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc
    from numpy.typing import NDArray

    from runlake.storage.tables import SnapshotTables
else:
    np = lazy("numpy")
    pa = lazy("pyarrow")
    pc = lazy("pyarrow.compute")

_SOURCE_TAG: Final = "mlflow.source.name"
# Kinds of which a run may have any number; they are read where a question needs them.
_HELD: Final = (schema.PARAM, schema.TAG, schema.INPUT)
_NEVER: Final = 2**63 - 1


@final
class Folded(FoldedModels):
    """What one snapshot says of runs."""

    def __init__(self, tables: SnapshotTables) -> None:
        """Nothing is folded before it is asked for.

        Args:
            tables: the snapshot.
        """
        self._tables = tables

    @property
    def is_folded(self) -> bool:
        """Whether `runs` has been asked for before."""
        return "_ordered" in self.__dict__

    @cached_property
    def runs(self) -> pa.Table:
        """One row for each run, by place.

        `run_id`, `experiment_id`, `run_name`, `status`, `is_quiet` (no open writer of it is
        fresh), `is_set` (the latest word was set for the run as a whole), `start_us`, `end_us`
        (of the latest word), `user_id`, `source_name`, `parent_run_id`, `is_deleted`.
        """
        return self._ordered[0]

    @cached_property
    def run_facts(self) -> pa.Table:
        """What is known of each run by itself, by place; see `runlake.query.run_facts`."""
        return run_facts(self.runs, self.homes, self._tables.root_url)

    @cached_property
    def homes(self) -> dict[str, Home]:
        """The experiments, see `runlake.query.homes`."""
        return fold_homes(self._tables, self.births)

    def home(self, experiment_id: str) -> Home | None:
        """Return one experiment, None where there is none; the others are not folded for it.

        Args:
            experiment_id: the experiment.
        """
        known = self.__dict__.get("homes")
        if known is None:
            known = fold_homes(self._tables, self.births, only=experiment_id)
        return known.get(experiment_id)

    @cached_property
    def told_homes(self) -> dict[str, Home]:
        """The experiments that events and writers tell of: found without folding runs."""
        return fold_homes(self._tables, pa.table({"experiment_id": [], "clock": []}))

    @cached_property
    def births(self) -> pa.Table:
        """The earliest clock of each experiment that has runs: `experiment_id`, `clock`."""
        facts = self._facts
        homes = facts.homes
        is_run = facts.runs.codes != facts.runs.code_of("")
        clocks = np.full(len(homes.values), _NEVER)
        np.minimum.at(clocks, homes.codes[is_run], facts.clocks[is_run])
        found = dict(zip(homes.values.to_pylist(), clocks.tolist(), strict=True))
        for rows in self._held_rows.values():
            for home, clock in rows.least_clocks().items():
                if home != schema.RESERVED_PARTITION:
                    found[home] = min(clock, found.get(home, _NEVER))
        found = {home: clock for home, clock in found.items() if clock < _NEVER}
        return pa.table(
            {
                "experiment_id": arrays.strings(list(found)),
                "clock": arrays.numbers(np.array(list(found.values()), np.int64)),
            }
        )

    @cached_property
    def deletions(self) -> pa.Table:
        """The runs that were deleted one by one, and when: `run_id`, `clock`."""
        facts = self._facts
        rows = np.concatenate([facts.rows(schema.DELETE), facts.rows(schema.RESTORE)])
        rows = facts.stand(rows, facts.runs_of(rows), latest=True)
        rows = rows[facts.kinds.codes[rows] == facts.kinds.code_of(schema.DELETE)]
        run_ids: Any = facts.runs.values.take(arrays.numbers(facts.runs_of(rows)))
        return pa.table({"run_id": run_ids, "clock": arrays.numbers(facts.clocks[rows])})

    @cached_property
    def params(self) -> Holding:
        """What params runs have: `value`, `number`."""
        return self._holding(schema.PARAM, latest=False)

    @cached_property
    def tags(self) -> Holding:
        """What tags runs have: `value`."""
        return self._holding(schema.TAG, latest=True)

    @cached_property
    def inputs(self) -> Holding:
        """What data sets runs have, as JSON: `value`."""
        return self._holding(schema.INPUT, latest=True)

    @cached_property
    def logged(self) -> dict[str, LoggedModel]:
        """The logged models, see `runlake.query.logged`."""
        return fold_models(self._tables)

    @cached_property
    def metrics(self) -> Holding:
        """What metrics runs have: the columns of `metric_summary`, ids included."""

        def fold(summaries: Selected, places: NDArray[np.int32]) -> Held:
            runs, keys = summaries.codes("run_id"), summaries.texts("key")
            groups = runs * np.int64(len(keys.values)) + keys.codes
            found = SummaryFold(summaries, groups)

            def values(name: str, rows: NDArray[np.int64]) -> pa.Array[Any]:
                if name not in {"run_id", "experiment_id"}:
                    return found.values(name, rows)
                codes, texts = summaries.texts(name)
                numbers = arrays.numbers(codes[found.heads[rows]])
                return pa.DictionaryArray.from_arrays(numbers, texts)

            return Held(
                places[runs[found.heads]],
                keys.codes[found.heads],
                keys.values,
                values=values,
                run_count=self.runs.num_rows,
            )

        return Holding(self._tables.summaries, fold, reads=read_columns, run_ids=self._run_ids)

    def has_metric(self, key: str) -> bool:
        """Tell whether any run has a metric of this name."""
        return self.metrics.code_of(key) >= 0

    @cached_property
    def _held_rows(self) -> dict[str, StateRows]:
        """The facts of the kinds that runs hold many of, by kind."""
        return {kind: self._tables.facts.of_kinds({kind}) for kind in _HELD}

    @cached_property
    def _facts(self) -> Facts:
        """What runs say of themselves, and of some runs all facts there are."""
        spoken = self._tables.facts.of_kinds({*_HELD, *MODEL_KINDS}, but=True)
        spoken.load(spoken.schema.names)  # in one pass
        wanted = self._doubtful(spoken)
        rows = spoken
        if len(wanted):
            more = (held.of_runs(wanted) for held in self._held_rows.values())
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
        for rows in self._held_rows.values():
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
        tables, facts = self._tables, self._facts
        fresh_us = tables.now_us - int(tables.stale_s * 1e6)
        times = arrays.values(tables.writers["object_time_us"].combine_chunks())
        rows = arrays.numbers(np.flatnonzero(times >= fresh_us))
        fresh = tables.writers["writer"].take(rows)
        has_fresh = _flags(pc.is_in(facts.writers.values, value_set=fresh))
        is_open = has_fresh.copy()
        is_open[facts.writers.codes[facts.rows(schema.CLOSE)]] = False
        return Writers(is_fresh=has_fresh, is_open=is_open)

    @cached_property
    def _ordered(self) -> tuple[pa.Table, NDArray[np.int32]]:
        """Return the runs by place, and the place of each run code."""
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
        places = np.full(table.num_rows, -1, np.int32)
        places[order] = np.arange(len(order), dtype=np.int32)
        return table.take(arrays.numbers(order)), places

    def _homes(self) -> dict[str, Any]:
        """Return where each run belongs, its earliest clock, and whether a writer is fresh."""
        facts = self._facts
        runs = facts.runs.codes
        # Facts of one run by one writer lie together: of each stretch the least clock will do.
        is_new = np.ones(len(runs), bool)
        is_new[1:] = (runs[1:] != runs[:-1]) | (facts.writers.codes[1:] != facts.writers.codes[:-1])
        heads = np.flatnonzero(is_new)
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
        tags = self._held_rows[schema.TAG]
        if not said.null_count or tags.coded("key").code_of(_SOURCE_TAG) < 0:
            return said
        keys = tags.coded("key")
        rows = np.flatnonzero(keys.codes == keys.code_of(_SOURCE_TAG))
        tagged = Selected(tags, rows)
        runs = tagged.codes("run_id")
        stood = _standing(tagged, runs.astype(np.int64), latest=True)
        stood = np.arange(len(runs)) if stood is None else stood
        known: Any = pc.index_in(self._facts.runs.values, value_set=tags.coded("run_id").values)
        places = np.full(len(tags.coded("run_id").values), -1, np.int64)
        places[runs[stood]] = stood
        at = np.where(arrays.is_valid(known), places[arrays.values(known)], -1)
        texts = tagged.column("str").take(arrays.numbers(np.maximum(at, 0), mask=at < 0))
        return pc.coalesce(said, texts)

    def _run_ids(self) -> pa.StringArray:
        """Return the runs by place."""
        return cast("pa.StringArray", self.runs["run_id"].combine_chunks())

    def _holding(self, kind: str, *, latest: bool) -> Holding:
        """Return what stands of one kind of facts, by run and key."""
        facts = self._held_rows[kind]

        def fold(said: Selected, places: NDArray[np.int32]) -> Held:
            runs, keys = said.codes("run_id"), said.texts("key")
            stood = _standing(said, runs * np.int64(len(keys.values)) + keys.codes, latest=latest)
            if kind == schema.TAG:
                is_there = arrays.is_valid(said.column("str"))
                stood = np.flatnonzero(is_there) if stood is None else stood[is_there[stood]]

            def values(name: str, rows: NDArray[np.int64]) -> pa.Array[Any]:
                column = said.column({"value": "str", "number": "num"}[name])
                return column.take(arrays.numbers(rows if stood is None else stood[rows]))

            return Held(
                places[runs if stood is None else runs[stood]],
                keys.codes if stood is None else keys.codes[stood],
                keys.values,
                values=values,
                run_count=self.runs.num_rows,
            )

        def reads(name: str) -> Sequence[str]:
            return ("str",) if name == "value" else ("num",)

        return Holding(facts, fold, reads=reads, run_ids=self._run_ids)


def _standing(
    said: Selected, groups: NDArray[np.int64], *, latest: bool
) -> NDArray[np.int64] | None:
    """Choose one fact of each group by (clock, writer, seq); None where each has one only."""
    if occurs_once(groups).all():
        return None
    writers = said.texts("writer")
    clocks, seqs = (arrays.values(said.column(name)) for name in ("clock", "seq"))
    return standing(groups, [clocks, writers.ranks()[writers.codes], seqs], latest=latest)


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


def _flags(found: pa.BooleanArray) -> NDArray[np.bool_]:
    """Return booleans without nulls as NumPy's."""
    return arrays.values(found.cast(pa.int8())).astype(bool)
