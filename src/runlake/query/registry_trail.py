"""The audit trail of the registry: all that happened, or what a poller has not had.

One deed may stand in several rows: a claim is traced by its maker and by whoever found it
without a trace. A poller has each deed once, by whichever row came first.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from runlake import schema
from runlake._lazy import lazy
from runlake.query.bookmark import Cursor
from runlake.storage import arrays

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    from runlake.query.engine import Query
else:
    np = lazy("numpy")
    pa = lazy("pyarrow")
    pc = lazy("pyarrow.compute")

START: Final = Cursor("r1.", {})
"""The cursor of a poller who has had nothing."""
_VIEW: Final = "registry_events"
_OF_MODEL: Final = f'SELECT * FROM {_VIEW} WHERE name = $name ORDER BY "at", writer, seq'
_CHOSEN: Final = f"""
SELECT e.* FROM {_VIEW} AS e
JOIN (SELECT unnest($writers::VARCHAR[]) AS writer, unnest($seqs::BIGINT[]) AS seq) AS w
    ON e.writer = w.writer AND e.seq = w.seq
ORDER BY e."at", e.writer, e.seq
"""
_CLAIMS: Final = frozenset(
    {
        schema.REGISTRY_MODEL_CREATE,
        schema.REGISTRY_MODEL_RENAME,
        schema.REGISTRY_VERSION_CREATE,
    }
)


class _Row(NamedTuple):
    """One row of the registry.

    Attributes:
        writer: who wrote it.
        seq: its number.
        deed: what it tells of, the same in every trace of a claim.
    """

    writer: str
    seq: int
    deed: tuple[object, ...]


def history(query: Query, name: str) -> pa.Table:
    """Return all that happened to the models that go by a name, or went by it last.

    Args:
        query: the snapshot.
        name: of the model.

    Returns:
        Rows of `registry_events`, the oldest first.
    """
    return query.read(_OF_MODEL, {"name": name}, needs=(_VIEW,))


def changes(query: Query, cursor: Cursor) -> tuple[pa.Table, Cursor]:
    """Return what a poller has not had, and the cursor behind it.

    Args:
        query: the snapshot.
        cursor: what was had.

    Returns:
        Rows of `registry_events`, the oldest first; and the cursor of whoever has had them.
    """
    rows = _rows(query.tables.lake_events)
    had = {row.deed for row in rows if row.seq <= cursor.floor(row.writer)}
    fresh: dict[tuple[str, int], tuple[object, ...]] = {
        (row.writer, row.seq): row.deed
        for row in rows
        if row.seq > cursor.floor(row.writer) and row.deed not in had
    }
    params: dict[str, Any] = {
        "writers": [writer for writer, _ in fresh],
        "seqs": [seq for _, seq in fresh],
    }
    found = query.read(_CHOSEN, params, needs=(_VIEW,))
    places = []
    for place, row in enumerate(zip(found["writer"], found["seq"], strict=True)):
        deed = fresh[row[0].as_py(), row[1].as_py()]
        if deed not in had:
            had.add(deed)
            places.append(place)
    greatest: dict[str, int] = {}
    for each in rows:
        greatest[each.writer] = max(each.seq, greatest.get(each.writer, -1))
    return found.take(arrays.numbers(np.array(places, np.int64))), cursor.after(greatest)


def _rows(events: pa.Table) -> list[_Row]:
    """Return the rows of the registry."""
    kinds: Any = events["kind"].cast(pa.string())
    is_mine: Any = pc.starts_with(kinds, "registry_")
    mine = events.filter(is_mine)
    names = ("writer", "seq", "run_id", "kind", "num", "str")
    columns = (mine[name].to_pylist() for name in names)
    return [
        _Row(writer, seq, _deed(model_id, kind, num, text) or (writer, seq))
        for writer, seq, model_id, kind, num, text in zip(*columns, strict=True)
    ]


def _deed(
    model_id: str, kind: str, num: float | None, text: str | None
) -> tuple[object, ...] | None:
    """Return what a claim's trace tells of; None of any other row."""
    if kind not in _CLAIMS:
        return None
    if kind == schema.REGISTRY_VERSION_CREATE:
        return kind, model_id, num
    try:
        return kind, model_id, str(json.loads(text or "")["nonce"])
    except (ValueError, KeyError, TypeError):
        return None
