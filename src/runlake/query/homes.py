"""How events, writers and runs fold into what experiments are.

The rules:

- An experiment is known by its claim, by a change of it, or by a writer or run in it. One that
  was purged is known by its runs only, which have come since, and goes by its id.
- Of claims the earliest stands; of names, tags, deletion and restoring the latest, in the order
  (clock, writer, seq). A tag that is null is gone.
- It was updated when it was renamed, deleted or restored last, else when it was made: as in
  MLflow tags do not count.
- Where nobody gave a name, it is the one that the newest writer says, else the id.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from runlake import ids, schema
from runlake._lazy import lazy
from runlake.storage import arrays

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    from runlake.storage.tables import SnapshotTables
else:
    np = lazy("numpy")
    pa = lazy("pyarrow")
    pc = lazy("pyarrow.compute")

_Order: TypeAlias = tuple[int, str, int]  # clock, writer, seq
_NO_TIME_US: Final = 2.0**63
_FIRST: Final[_Order] = (-(2**63), "", -1)
_CHANGES: Final = (schema.EXPERIMENT_DELETE, schema.EXPERIMENT_RESTORE)
_UPDATES: Final = (*_CHANGES, schema.EXPERIMENT_RENAME)


class Home(NamedTuple):
    """What one snapshot says of one experiment.

    Attributes:
        experiment_id: the experiment.
        name: what people call it.
        lifecycle_stage: `active` or `deleted`.
        artifact_location: where its runs' artifacts lie.
        created_us: microseconds since 1970, None where nothing tells.
        changed_us: when it was updated last, as above.
        tags: text by key, by the order of the keys.
    """

    experiment_id: str
    name: str
    lifecycle_stage: str
    artifact_location: str
    created_us: int | None
    changed_us: int | None
    tags: dict[str, str]


class _Said:
    """What the events of one experiment say."""

    __slots__ = (
        "_changed",
        "_orders",
        "changed_us",
        "claim",
        "claimed_name",
        "claimed_us",
        "latest",
        "told_us",
    )

    def __init__(self) -> None:
        self._orders: dict[tuple[str, str], _Order] = {}
        self._orders[schema.EXPERIMENT_CREATE, ""] = (2**63, "", 0)
        self.latest: dict[tuple[str, str], str | None] = {}
        self.claim: Mapping[str, Any] = {}
        self.claimed_name: str | None = None
        self.claimed_us: int | None = None
        self.told_us: int = _FIRST[0]
        self.changed_us: int | None = None
        self._changed: _Order = _FIRST

    def take(
        self, order: _Order, kind: str, key: str, *, num: float | None, text: str | None
    ) -> None:
        self.told_us = max(self.told_us, order[0])
        if kind in _UPDATES and order > self._changed:
            self._changed, self.changed_us = order, order[0]
            if num is not None and abs(num) < _NO_TIME_US:  # nor is it NaN
                self.changed_us = int(num)
        if kind == schema.EXPERIMENT_CREATE:
            self._create(order, key, text)
        elif kind == schema.EXPERIMENT_TAG:
            self._keep(order, kind, key, text)
        elif kind == schema.EXPERIMENT_RENAME:
            self._keep(order, kind, "", key)
        elif kind in _CHANGES:
            self._keep(order, schema.EXPERIMENT_DELETE, "", kind)

    def tags(self) -> dict[str, str]:
        """Return the tags; those of the claim are as old as it is."""
        given = self.claim.get("tags")
        if isinstance(given, dict):
            order = self._orders[schema.EXPERIMENT_CREATE, ""]
            for key, text in given.items():
                self._keep(order, schema.EXPERIMENT_TAG, key, None if text is None else str(text))
        found = (
            (key, text)
            for (kind, key), text in self.latest.items()
            if kind == schema.EXPERIMENT_TAG and text is not None
        )
        return dict(sorted(found))

    def _create(self, order: _Order, name: str, claim: str | None) -> None:
        if order >= self._orders[schema.EXPERIMENT_CREATE, ""]:
            return
        self._orders[schema.EXPERIMENT_CREATE, ""] = order
        self.claimed_name, self.claimed_us, self.claim = name, order[0], _mapping(claim)

    def _keep(self, order: _Order, kind: str, key: str, text: str | None) -> None:
        if order >= self._orders.get((kind, key), _FIRST):
            self._orders[kind, key] = order
            self.latest[kind, key] = text


def fold_homes(
    tables: SnapshotTables, births: pa.Table, *, only: str | None = None
) -> dict[str, Home]:
    """Return experiments by their id, in the order of the ids.

    Args:
        tables: the snapshot.
        births: the earliest clock of each experiment that has runs: `experiment_id`, `clock`.
        only: the id of the one that is wanted; None for all.
    """
    said, seen = _told(_rows_of(tables.lake_events, "run_id", only)), _seen(tables, only)
    columns: Any = (births[name].to_pylist() for name in ("experiment_id", "clock"))
    born: dict[str, int] = dict(zip(*columns, strict=True))
    return {
        each: _home(
            _own_location(tables, each),
            each,
            said=said.get(each),
            seen=seen.get(each),
            born_us=born.get(each),
        )
        for each in sorted({*said, *seen, *born})
        if only in {None, each}
    }


def chosen_locations(tables: SnapshotTables) -> dict[str, str]:
    """Return where artifacts lie of experiments for which somebody chose a place outside the lake.

    Args:
        tables: the snapshot; nothing is folded of its runs.

    Returns:
        Locations by experiment id.
    """
    found = {}
    for each, said in _told(tables.lake_events).items():
        given = said.claim.get("artifact_location")
        if given is not None and str(given) != _own_location(tables, each):
            found[each] = str(given)
    return found


def homes_table(homes: Mapping[str, Home]) -> pa.Table:
    """Return experiments as the view `experiments` shows them.

    Args:
        homes: by id.
    """
    columns = list(zip(*homes.values(), strict=True)) or [()] * len(Home._fields)
    by_name: dict[str, Any] = dict(zip(Home._fields, columns, strict=True))
    return pa.table(
        {
            **{
                name: arrays.strings(by_name[name])
                for name in ("experiment_id", "name", "lifecycle_stage", "artifact_location")
            },
            "creation_time": _times(by_name["created_us"]),
            "last_update_time": _times(by_name["changed_us"]),
            "tags": _maps(by_name["tags"]),
        }
    )


# `pa.array` of Python's values would load pandas where that is installed.
def _times(moments: Sequence[int | None]) -> pa.Array[Any]:
    """Return microseconds since 1970 as times."""
    numbers = np.array([moment or 0 for moment in moments], np.int64)
    is_missing = np.array([moment is None for moment in moments], bool)
    return arrays.numbers(numbers, mask=is_missing).view(pa.timestamp("us", tz="UTC"))


def _maps(texts: Sequence[Mapping[str, str]]) -> pa.Array[Any]:
    """Return texts by key as maps."""
    ends: Any = arrays.numbers(np.cumsum([0, *map(len, texts)], dtype=np.int32))
    keys = arrays.strings([key for each in texts for key in each])
    values = arrays.strings([value for each in texts for value in each.values()])
    maps: Any = pa.MapArray.from_arrays(ends, keys, values)
    found: pa.Array[Any] = maps
    return found


def _own_location(tables: SnapshotTables, experiment_id: str) -> str:
    """Return where the artifacts of an experiment lie if nobody chose a place."""
    return f"{tables.root_url}/artifacts/{experiment_id}"


def _rows_of(rows: pa.Table, column: str, experiment_id: str | None) -> pa.Table:
    """Return the rows of one experiment; None: all rows."""
    if experiment_id is None:
        return rows
    return rows.filter(pc.equal(rows[column], arrays.text(experiment_id)))


def _told(rows: pa.Table) -> dict[str, _Said]:
    """Return what events say of each experiment."""
    rows = rows.filter(pc.starts_with(rows["kind"], "experiment_"))
    columns = (
        rows[name].to_pylist()
        for name in ("run_id", "clock", "writer", "seq", "kind", "key", "num", "str")
    )
    found: dict[str, _Said] = {}
    for experiment_id, clock, writer, seq, kind, key, num, text in zip(*columns, strict=True):
        said = found.setdefault(experiment_id, _Said())
        said.take((clock, writer, seq), kind, key, num=num, text=text)
    return found


def _seen(tables: SnapshotTables, only: str | None) -> dict[str, str | None]:
    """Return what the newest writer of each partition, or only of one, calls it."""
    names = ("experiment_id", "object_time_us", "writer", "experiment_name")
    hidden = {schema.RESERVED_PARTITION, *tables.purged}
    found: dict[str, tuple[int, str, str | None]] = {}
    rows = _rows_of(tables.writers, "experiment_id", only)
    columns: Any = (rows[name].to_pylist() for name in names)
    for experiment_id, time_us, writer, name in zip(*columns, strict=True):
        if experiment_id in hidden:
            continue
        last = found.setdefault(experiment_id, (_FIRST[0], "", None))
        if name is not None and (time_us, writer) >= last[:2]:
            found[experiment_id] = time_us, writer, name
    return {experiment_id: name for experiment_id, (_, _, name) in found.items()}


def _home(
    location: str,
    experiment_id: str,
    *,
    said: _Said | None,
    seen: str | None,
    born_us: int | None,
) -> Home:
    default = ids.DEFAULT_EXPERIMENT_NAME
    fallback = default if experiment_id == ids.DEFAULT_EXPERIMENT_ID else experiment_id
    if said is None:
        name = seen or fallback
        return Home(experiment_id, name, schema.ACTIVE, location, born_us, born_us, {})
    is_deleted = said.latest.get((schema.EXPERIMENT_DELETE, "")) == schema.EXPERIMENT_DELETE
    names = (said.latest.get((schema.EXPERIMENT_RENAME, "")), said.claimed_name, seen, fallback)
    times = (_whole(said.claim.get("time_us")), said.claimed_us, born_us, said.told_us)
    created_us = next(time for time in times if time is not None)
    given = said.claim.get("artifact_location")
    return Home(
        experiment_id,
        next(name for name in names if name is not None),
        schema.DELETED if is_deleted else schema.ACTIVE,
        location if given is None else str(given),
        created_us,
        created_us if said.changed_us is None else said.changed_us,
        said.tags(),
    )


def _mapping(text: str | None) -> Mapping[str, Any]:
    """Read JSON; what is no mapping says nothing."""
    try:
        found = json.loads(text or "null")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _whole(value: object) -> int | None:
    is_number = isinstance(value, int) and not isinstance(value, bool)
    return int(str(value)) if is_number else None
