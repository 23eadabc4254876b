"""What stands of many states of the same writers: the fold of `facts`, `summaries`, `writers`.

A writer's states are cumulative, so of several the one that says most stands: of facts the
earliest or latest by their kind, of summaries the one with the most points, of watermarks the
greatest. Folding what was folded before changes nothing. The normative text is
`docs/spec/v1.md`, "State".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runlake import schema
from runlake._lazy import lazy
from runlake.storage import arrays
from runlake.storage.standing import begins, coded, standing
from runlake.storage.table_files import FACTS, SUMMARIES, Table
from runlake.upkeep.order import group_codes, ranks_of, sort_order

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray
else:
    np = lazy("numpy")
    pa = lazy("pyarrow")


def folded(table: Table, rows: pa.Table) -> pa.Table:
    """Return of the rows that agree in the table's order the one that stands, in order.

    Args:
        table: a table that is folded.
        rows: states of any writers, in any order, met any number of times.
    """
    order = sort_order(rows, table.order)
    if order is not None:
        rows = rows.take(arrays.numbers(order))
    groups = _numbered_groups(rows, table)
    if not len(groups) or groups[-1] == len(groups) - 1:
        return rows
    kept = standing(groups, _rank(table, rows), latest=True)
    return rows.take(arrays.numbers(kept))


def _numbered_groups(rows: pa.Table, table: Table) -> NDArray[np.int64]:
    """Return for each of rows in order the number of its group."""
    codes = group_codes(rows, table.order)
    if not len(codes):
        return codes
    return np.cumsum(begins(codes)) - 1


def _rank(table: Table, rows: pa.Table) -> list[NDArray[Any]]:
    """Return the columns by which the greatest row of a group stands."""
    if table.name == SUMMARIES.name:
        return [ranks_of(rows["n"])]
    if table.name != FACTS.name:
        return [ranks_of(rows["last"])]
    kinds, keys = coded(rows["kind"]), coded(rows["key"])
    is_first = kinds.codes == kinds.code_of(schema.PARAM)
    is_named = keys.codes == keys.code_of(schema.RUN_NAME)
    is_first |= (kinds.codes == kinds.code_of(schema.RUN)) & ~is_named
    # ~x orders integers downwards like -x, and cannot overflow.
    return [np.where(is_first, ~each, each) for each in map(ranks_of, (rows["clock"], rows["seq"]))]
