"""Answers for people: runs found by what was typed, listed, told in full; the head of others.

Rows are dictionaries of plain Python values; times are aware, to the microsecond.
"""

from __future__ import annotations

import fnmatch
import re
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

from runlake import schema
from runlake._lazy import lazy
from runlake.errors import InvalidInputError, NotFoundError
from runlake.query.compile import compile_search
from runlake.query.data import read_data
from runlake.query.export import to_rows
from runlake.query.search import find_runs

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa

    from runlake.query.confine import Watch
    from runlake.query.engine import Query
    from runlake.query.search import RunSearch
else:
    pa = lazy("pyarrow")

RUN_FIELDS: Final = (
    "run_id",
    "run_name",
    "experiment_id",
    "experiment_name",
    "status",
    "is_stale",
    "start_time",
    "end_time",
    "duration",
    "artifact_uri",
)
MORE_FIELDS: Final = ("lifecycle_stage", "user_id", "source_name", "parent_run_id")
GROUPS: Final = ("metrics", "params", "tags")
SHORT_ID: Final = 8
_CHOICES_SHOWN: Final = 5
# What an id may be made of; "_" and "%" mean themselves in `starts_with`.
_ID_PART: Final = re.compile(r"[0-9A-Za-z_-]{1,64}")
_FOUND_SQL: Final = f"""
SELECT run_id, run_name
FROM inside.run_facts
WHERE {{condition}}
ORDER BY lifecycle_stage = '{schema.DELETED}', start_time DESC, run_id
"""
# Of several writers the first tells.
_PROVENANCE_SQL: Final = """
SELECT key, min(struct_pack("at", writer, value)).value AS value
FROM provenance
WHERE run_id = $1 AND NOT starts_with(key, 'packages.')
GROUP BY key
ORDER BY key
"""
_NEAREST_SQL: Final = """
SELECT run_name, count(*) OVER () AS total
FROM inside.run_facts
ORDER BY jaro_winkler_similarity(run_name, $1) DESC, run_name
LIMIT 50
"""
_COUNTS_SQL: Final = f"""
SELECT
    (SELECT count(*) FROM experiments WHERE lifecycle_stage = '{schema.ACTIVE}') AS experiments,
    (SELECT count(*) FROM inside.run_facts WHERE lifecycle_stage = '{schema.ACTIVE}') AS runs
"""
_ABOUT_SQL: Final = """
SELECT * EXCLUDE (run_id, experiment_id)
FROM {view}
WHERE run_id = $1
ORDER BY {order}
"""


@dataclass(frozen=True, slots=True)
class Listing:
    """A page of runs.

    Attributes:
        rows: `RUN_FIELDS`, then `metrics`, `params` and `tags` as mappings.
        fields: the title and the values of each field that was asked for besides.
        run_count: how many runs match, on this page or not.
    """

    rows: list[dict[str, Any]]
    fields: dict[str, list[Any]]
    run_count: int


def list_runs(query: Query, wanted: RunSearch, *, fields: Sequence[str] = ()) -> Listing:
    """Return one page of runs, and how many there are.

    Args:
        query: the snapshot.
        wanted: what is asked for.
        fields: to be shown besides, as a filter names them: `params.lr`, `metrics.acc.min`.

    Raises:
        FilterSyntaxError: the filter, the order or a field cannot be read.
        NotFoundError: an experiment is unknown.
    """
    limit = wanted.limit
    every = find_runs(query, replace(wanted, limit=None)).names
    page = every if limit is None else every.slice(0, limit)
    compiled = compile_search("", fields=fields, has_metric=query.folded.has_metric)
    columns = [*RUN_FIELDS, *(f"{sql} AS field_{n}" for n, (_, sql) in enumerate(compiled.fields))]
    joins = "".join(
        f"\nPOSITIONAL JOIN {table} AS f{number}"
        for number, table in enumerate(query.columns(compiled.columns))
    )
    statement = (
        f"SELECT r.rowid AS place, {', '.join(columns)}\nFROM inside.run_facts AS r{joins}\n"
        f"WHERE r.rowid IN (SELECT unnest(CAST($places AS BIGINT[])))"
    )
    params = {"places": page.to_pylist(), **compiled.params}
    found = to_rows(query.read(statement, params, needs=("run_facts", *compiled.needs)))
    by_place = {row.pop("place"): row for row in found}
    rows = [by_place[place] for place in page.to_pylist()]
    shown = {
        title: [row.pop(f"field_{number}") for row in rows]
        for number, (title, _) in enumerate(compiled.fields)
    }
    _fill(query, page, by_place)
    return Listing(rows, shown, len(every))


def describe_run(query: Query, run_id: str) -> dict[str, Any]:
    """Return everything but the points of one run.

    Args:
        query: the snapshot.
        run_id: the run.

    Returns:
        `RUN_FIELDS` and `MORE_FIELDS`; then `params`, `tags`, `metrics` (summaries by key),
        `inputs`, the events of `artifacts`, and `provenance` (values by key, without packages).

    Raises:
        NotFoundError: there is no such run.
    """
    statement = (
        f"SELECT rowid AS place, {', '.join([*RUN_FIELDS, *MORE_FIELDS])}\n"
        "FROM inside.run_facts WHERE run_id = $1"
    )
    found = query.read(statement, [run_id], needs=("run_facts",))
    if not found.num_rows:
        raise _missing(query, run_id)
    (about,) = to_rows(found)
    _fill(query, found["place"], {about.pop("place"): about})
    about |= {name: about.pop(name) for name in ("params", "tags", "metrics")}
    for view, order in (("metric_summary", "key"), ("inputs", "name"), ("artifacts", "path")):
        text = _ABOUT_SQL.format(view=view, order=order)
        about[view] = to_rows(query.read(text, [run_id], needs=(view,)))
    told = to_rows(query.read(_PROVENANCE_SQL, [run_id], needs=("provenance",)))
    about["provenance"] = {row["key"]: row["value"] for row in told}
    about["metrics"] = {row.pop("key"): row for row in about.pop("metric_summary")}
    return about


def find_run(query: Query, wanted: str) -> str:
    """Find the one run that an id, the beginning of an id, or a name means.

    Args:
        query: the snapshot.
        wanted: what was typed.

    Returns:
        Its id; the run may be deleted.

    Raises:
        InvalidInputError: it fits several runs.
        NotFoundError: it fits none; names the nearest.
    """
    conditions = ["run_id = $1", "run_name = $1"]
    if _ID_PART.fullmatch(wanted):
        conditions.append("starts_with(run_id, $1)")
    for condition in conditions:
        statement = _FOUND_SQL.format(condition=condition)
        rows = to_rows(query.read(statement, [wanted], needs=("run_facts",)))
        if len(rows) > 1:
            raise _ambiguous(wanted, rows)
        if rows:
            return str(rows[0]["run_id"])
    raise _missing(query, wanted)


def tell_metrics(query: Query, words: Sequence[str]) -> list[bool]:
    """Tell of each word whether it is the key of a metric, or a pattern that fits one.

    Args:
        query: the snapshot.
        words: as typed; what is no metric may mean a run.
    """
    known: list[str] = [str(name) for name in query.folded.metrics.names.to_pylist()]
    return [word in known or bool(fnmatch.filter(known, word)) for word in words]


def read_head(query: Query, text: str, *, rows: int, watch: Watch) -> tuple[pa.Table, bool]:
    """Run one reading statement no further than its first rows.

    Args:
        query: the snapshot.
        text: DuckDB's SQL, as for `Query.sql`.
        rows: greatest number of them.
        watch: bounds the time.

    Returns:
        The rows, and whether there are more.
    """
    kept, found = [], 0
    with query.stream(text, watch=watch, batch_rows=rows + 1) as (columns, batches):
        for batch in batches:
            kept.append(batch)
            found += batch.num_rows
            if found > rows:
                break
        table = pa.Table.from_batches(kept, columns)
    return table.slice(0, rows), found > rows


def count(query: Query) -> dict[str, int]:
    """Return how many `experiments` and `runs` there are, without deleted ones."""
    (found,) = to_rows(query.read(_COUNTS_SQL, needs=("experiments", "run_facts")))
    return found


def short_length(run_ids: Sequence[str]) -> int:
    """Return how many characters tell these ids apart; those made together begin alike."""
    alike = (_alike(first, second) for first, second in pairwise(sorted({*run_ids})))
    return max(SHORT_ID, 1 + max(alike, default=0))


def _fill(query: Query, places: pa.ChunkedArray[Any], by_place: dict[int, dict[str, Any]]) -> None:
    """Give runs their last metrics, params and tags."""
    for row in by_place.values():
        row.update({group: {} for group in GROUPS})
    data = read_data(query, places)
    held = (data[name].to_pylist() for name in ("prefix", "place", "key", "num", "str"))
    for group, place, key, number, text in zip(*held, strict=True):
        by_place[place][group][key] = number if group == "metrics" else text


def _ambiguous(wanted: str, rows: Sequence[dict[str, Any]]) -> InvalidInputError:
    length = short_length([row["run_id"] for row in rows])
    shown = ", ".join(
        f"{row['run_id'][:length]} ({row['run_name']})" for row in rows[:_CHOICES_SHOWN]
    )
    rest = len(rows) - _CHOICES_SHOWN
    more = f" and {rest} more" if rest > 0 else ""
    return InvalidInputError(
        f"{wanted!r} fits {len(rows)} runs: {shown}{more}. Give the beginning of one run's id."
    )


def _missing(query: Query, wanted: str) -> NotFoundError:
    near = query.read(_NEAREST_SQL, [wanted], needs=("run_facts",))
    total = near["total"][0].as_py() if near.num_rows else 0
    known = [str(name) for name in dict.fromkeys(near["run_name"].to_pylist())]
    return NotFoundError.of("run", wanted, url=query.tables.root_url, known=known, count=total)


def _alike(first: str, second: str) -> int:
    """Return how many characters two texts have in common at their beginning."""
    differs = (
        place for place, pair in enumerate(zip(first, second, strict=False)) if len({*pair}) > 1
    )
    return next(differs, min(len(first), len(second)))
