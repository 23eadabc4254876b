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
from typing import TYPE_CHECKING, Any, final

from runlake import schema
from runlake._lazy import lazy
from runlake.query.held import Held, Holding, Selected, chosen
from runlake.query.homes import Home, fold_homes
from runlake.query.logged import LoggedModel, fold_models
from runlake.query.registered import FoldedModels
from runlake.query.run_facts import run_facts
from runlake.query.run_fold import FoldedRuns, fold_runs
from runlake.query.summaries import SummaryFold, read_columns
from runlake.storage import arrays

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from runlake.storage.states import StateRows
    from runlake.storage.tables import SnapshotTables
else:
    np = lazy("numpy")
    pa = lazy("pyarrow")


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
        return "_folded" in self.__dict__

    @property
    def runs(self) -> pa.Table:
        """One row for each run, by place.

        `run_id`, `experiment_id`, `run_name`, `status`, `is_quiet` (no open writer of it is
        fresh), `is_set` (the latest word was set for the run as a whole), `start_us`, `end_us`
        (of the latest word), `user_id`, `source_name`, `parent_run_id`, `is_deleted`.
        """
        return self._folded.runs

    @cached_property
    def run_facts(self) -> pa.Table:
        """What is known of each run by itself, by place; see `runlake.query.run_facts`."""
        return run_facts(self.runs, self.homes, self._tables.root_url)

    @cached_property
    def homes(self) -> dict[str, Home]:
        """The experiments, see `runlake.query.homes`."""
        return fold_homes(self._tables, self.births)

    @cached_property
    def births(self) -> pa.Table:
        """The earliest clock of each experiment that has runs: `experiment_id`, `clock`."""
        born = self._folded.births
        return pa.table(
            {
                "experiment_id": arrays.strings(list(born)),
                "clock": arrays.numbers(np.array(list(born.values()), np.int64)),
            }
        )

    @property
    def deletions(self) -> pa.Table:
        """The runs that were deleted one by one, and when: `run_id`, `clock`."""
        return self._folded.deletions

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

        return self._holding_of(self._tables.summaries, fold, read_columns)

    def has_metric(self, key: str) -> bool:
        """Tell whether any run has a metric of this name."""
        return self.metrics.code_of(key) >= 0

    @cached_property
    def _folded(self) -> FoldedRuns:
        tables = self._tables
        fresh_us = tables.now_us - int(tables.stale_s * 1e6)
        times = arrays.values(tables.writers["object_time_us"].combine_chunks())
        rows = arrays.numbers(np.flatnonzero(times >= fresh_us))
        fresh: Any = tables.writers["writer"].combine_chunks().take(rows)
        return fold_runs(tables.facts, fresh)

    def _places_of(self, rows: StateRows) -> NDArray[np.int32]:
        """Return the place of each run of `rows.coded("run_id")`; -1 where no fact names it."""
        return self._folded.places_of(rows)

    def _run_ids(self) -> pa.StringArray:
        """Return the runs by place."""
        return self._folded.run_ids

    def _holding(self, kind: str, *, latest: bool) -> Holding:
        """Return what stands of one kind of facts, by run and key."""
        facts = self._tables.facts.of_kinds({kind})

        def fold(said: Selected, places: NDArray[np.int32]) -> Held:
            runs, keys = said.codes("run_id"), said.texts("key")
            stood = chosen(said, runs * np.int64(len(keys.values)) + keys.codes, latest=latest)
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

        return self._holding_of(facts, fold, reads)

    def _holding_of(
        self,
        rows: StateRows,
        fold: Callable[[Selected, NDArray[np.int32]], Held],
        reads: Callable[[str], Sequence[str]],
    ) -> Holding:
        return Holding(rows, fold, reads=reads, run_ids=self._run_ids, places_of=self._places_of)
