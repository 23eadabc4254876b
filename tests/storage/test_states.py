from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runlake.errors import FormatError
from runlake.storage.compacted import CompactedState
from runlake.storage.filed import Filed
from runlake.storage.filesystem import Entry
from runlake.storage.rowobject import RowObject
from runlake.storage.states import StateRows
from runlake.storage.table_files import FACTS
from runlake.storage.tables import facts_schema
from tests.query.builders import Pieces

RUNS = ["", "run-1", "run-2", "run-3", "run-4"]
KINDS = ["close", "param", "run", "tag"]
HOMES = ["e1", "e2"]
Rows = list[dict[str, Any]]
_row = st.builds(
    lambda run, kind, home, clock: {
        "writer": f"w-{home}",
        "experiment_id": home,
        "run_id": run,
        "kind": kind,
        "key": f"key-{clock % 3}",
        "clock": clock,
        "seq": clock,
        "num": None,
        "str": f"text-{clock}",
    },
    st.sampled_from(RUNS),
    st.sampled_from(KINDS),
    st.sampled_from(HOMES),
    st.integers(1, 1000),
)
_some = st.lists(_row, max_size=40)
_hidden = st.sets(st.sampled_from(RUNS[1:]))


def table_of(rows: Rows) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=facts_schema())


def states_of(filed: Rows, live: Rows, hidden: set[str], size: int = 4) -> StateRows:
    files = [
        Pieces(
            home,
            table_of([row for row in filed if row["experiment_id"] == home]),
            FACTS.order,
            size,
        )
        for home in HOMES
    ]
    live = [row for row in live if row["run_id"] not in hidden]
    return StateRows(table_of(live), Filed(facts_schema(), files, hidden=hidden))


def listed(rows: Rows) -> list[str]:
    return sorted(map(repr, rows))


@settings(deadline=None)
@given(
    filed=_some,
    live=_some,
    hidden=_hidden,
    kinds=st.sets(st.sampled_from(KINDS)),
    but=st.booleans(),
    runs=st.sets(st.sampled_from(RUNS)),
    size=st.integers(1, 8),
)
def test_rows_of_kinds_and_runs_are_those_that_a_filter_leaves(
    filed: Rows,
    live: Rows,
    hidden: set[str],
    kinds: set[str],
    but: bool,  # noqa: FBT001 - drawn
    runs: set[str],
    size: int,
) -> None:
    shown = [row for row in filed + live if row["run_id"] not in hidden]
    meant = [row for row in shown if (row["kind"] in kinds) != but]
    states = states_of(filed, live, hidden, size)
    assert listed(states.to_pylist()) == listed(shown)
    found = states.of_kinds(kinds, but=but)
    assert found.num_rows == len(meant)
    of_runs = found.of_runs(pa.array(sorted(runs), pa.string()))
    assert listed(of_runs.to_pylist()) == listed([row for row in meant if row["run_id"] in runs])
    assert listed(found.to_pylist()) == listed(meant)
    clocks = {
        home: min(row["clock"] for row in meant if row["experiment_id"] == home)
        for home in {row["experiment_id"] for row in meant}
    }
    assert found.least_clocks() == clocks
    pairs = {(home, run) for home, texts in found.homes() for run in texts.to_pylist()}
    assert pairs >= {(row["experiment_id"], row["run_id"]) for row in meant}
    assert {run for _, run in pairs} <= {row["run_id"] for row in filed + live}


@settings(deadline=None)
@given(filed=_some, live=_some, data=st.data())
def test_a_column_of_some_rows_is_taken_from_every_part(
    filed: Rows, live: Rows, data: st.DataObject
) -> None:
    states = states_of(filed, live, set(), size=3)
    places = sorted(data.draw(st.sets(st.integers(0, max(0, states.num_rows - 1)))))
    places = places if states.num_rows else []
    whole = states["str"].to_pylist()
    assert states.take("str", np.array(places, np.int64)).to_pylist() == [
        whole[place] for place in places
    ]


def test_what_was_read_is_not_read_again_and_other_kinds_never() -> None:
    rows = [
        {**row, "kind": kind, "run_id": run}
        for run in RUNS[1:]
        for kind in ("param", "run")
        for row in [{"writer": "w", "experiment_id": "e1", "key": "k", "clock": 1, "seq": 1}]
    ]
    file = Pieces(
        "e1", table_of([{"num": None, "str": "x", **row} for row in rows]), FACTS.order, 2
    )
    states = StateRows(table_of([]), Filed(facts_schema(), [file])).of_kinds({"run"})
    assert states["run_id"].to_pylist() == RUNS[1:]
    states.load(["run_id", "str"])
    assert file.reads == [(2, ("run_id",)), (3, ("run_id",)), (2, ("str",)), (3, ("str",))]
    file.reads.clear()
    states.of_runs(pa.array(["run-1"])).load(["run_id", "str"])
    assert {group for group, _ in file.reads} == {2}


def test_damaged_rows_are_refused_by_name_when_they_are_needed(tmp_path: Any) -> None:  # noqa: ANN401
    import pyarrow.parquet as pq  # noqa: PLC0415

    path = tmp_path / "file.parquet"
    names = [column.name for column in FACTS.columns]
    rows = [{"num": None, "str": "x" * 99, "writer": "w", "run_id": "r", "kind": "tag", "key": "k"}]
    table = table_of([{**row, "clock": 1, "seq": 1, "experiment_id": "e1"} for row in rows])
    pq.write_table(
        table.select(names),
        path,
        write_page_checksum=True,
        compression="none",
        use_dictionary=False,
    )
    data = path.read_bytes()
    file = RowObject(Entry("tables/facts/x", len(data), 0), table=FACTS.name, experiment_id="e1")
    whole = StateRows(
        table.slice(0, 0), Filed(table.schema, [CompactedState(file, data, may_map=False)])
    )
    assert whole.to_pylist() == table.to_pylist()
    broken = data.replace(b"x" * 99, b"y" * 99)
    states = StateRows(
        table.slice(0, 0), Filed(table.schema, [CompactedState(file, broken, may_map=False)])
    )
    assert states["run_id"].to_pylist() == ["r"]
    with pytest.raises(FormatError, match="tables/facts/x"):
        states.load(["str"])
    with pytest.raises(FormatError, match="tables/facts/x"):
        CompactedState(file, data[:-1], may_map=False)
