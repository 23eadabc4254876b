"""The statement behind a leaderboard, over any tables that hold runs and their values."""

from __future__ import annotations

import math
import operator
import re
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from runlake import arguments, schema
from runlake.errors import InvalidInputError
from runlake.query.views import text_literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from runlake.query.compile import Compiled
    from runlake.query.database import KeyColumn

GOALS: Final = ("max", "min")
VALUES: Final = ("best", "last", "min", "max", "mean")

# What is shown of the best, and of its run.
_BEST: Final = ("value", "step")
_GROUP: Final = ("n", "mean", "std")
_RUN: Final = ("run_id", "run_name", "experiment_name")
_BOUND: Final = re.compile(r"\$(v\d+)\b")
_INT64: Final = range(-(2**63), 2**63)
# What stands in our own tables, and what in public views.
_SPELLINGS: Final = (
    ("r.rowid", "r.run_id"),
    ("i.place FROM inside.input_rows", "i.run_id FROM inputs"),
)
_PUBLIC_KEYS: Final = {
    "metric": 'SELECT run_id, "{statistic}" AS value FROM metric_summary WHERE key = {key}',
    "param": "SELECT run_id, value, number FROM params WHERE key = {key}",
    "tag": "SELECT run_id, value FROM tags WHERE key = {key}",
}
_PUBLIC_VALUE: Final = """
        SELECT run_id, {statistic} AS value, {step} AS step
        FROM metric_summary
        WHERE key = {key}"""
# Of several points at a step the latest stands, and of several at one time the greatest number.
_PUBLIC_VALUE_AT: Final = """
        SELECT
            run_id,
            max(struct_pack(timestamp, is_number := NOT isnan(value), value)).value AS value,
            CAST({step} AS BIGINT) AS step
        FROM metrics
        WHERE key = {key} AND step = {step}
        GROUP BY run_id"""
_STANDING: Final = """\
WITH standing AS (
    SELECT
        {columns}
    FROM {tables}
    WHERE {where}
)"""
# The greatest of all badness is NaN, as DuckDB orders numbers.
_GROUPED: Final = """, grouped AS (
    SELECT
        {groups},
        min(struct_pack(badness := {sign}value, start_time, id, value, step)) AS best,
        count(*) AS n,
        avg(value) AS mean,
        stddev_samp(value) AS std
    FROM standing
    GROUP BY {groups}
), bests AS (
    SELECT * EXCLUDE (best), unnest(best)
    FROM grouped
)"""
# Names are fetched last: to carry them along costs as much as all else together.
_RANKED: Final = """
SELECT
    rank() OVER (ORDER BY {best_first}) AS rank,
    {shown}
FROM (
    FROM {rows}
    ORDER BY {best_first}, start_time, id{limit}
) AS best
JOIN {runs} AS r ON {id} = best.id
ORDER BY rank, best.start_time, best.id"""


class Ranking(NamedTuple):
    """What is asked for, checked.

    Attributes:
        goal: `max` or `min`.
        value: a statistic of the metric, or a step.
        by: the fields of groups.
        top: greatest number of rows; None means all.
        experiment_ids: only of these experiments; None means of all.
    """

    goal: str
    value: str | int
    by: tuple[str, ...]
    top: int | None
    experiment_ids: tuple[str, ...] | None

    @classmethod
    def of(
        cls,
        *,
        goal: str | None,
        value: str | int,
        by: str | Sequence[str] | None,
        top: int | None,
        experiment_ids: Iterable[str] | None,
    ) -> Ranking:
        """Check what is asked for.

        Args:
            goal: see `runlake.query.leaderboard.leaderboard`, as for all others.
            value: `best` becomes the goal.
            by: one field becomes several.
            top: stays.
            experiment_ids: become texts.

        Returns:
            What is asked for.

        Raises:
            InvalidInputError: an argument is none of what it may be.
        """
        goal = "max" if goal is None else goal
        if arguments.text("goal", goal) not in GOALS:
            raise InvalidInputError(f"goal is {goal!r}; it may be {', '.join(map(repr, GOALS))}.")
        if top is not None and (type(top) is not int or top < 1):
            raise InvalidInputError(f"top is {top!r}; it may be 1 or more, or None for all.")
        named = arguments.several("experiment_ids", experiment_ids)
        return cls(
            goal=goal,
            value=goal if isinstance(value, str) and value == "best" else _value(value),
            by=_fields(by),
            top=top,
            experiment_ids=None if experiment_ids is None else tuple(map(str, named)),
        )


def _value(given: object) -> str | int:
    """Return a statistic, or a step, which may be a whole number of NumPy's too."""
    if isinstance(given, str) and given in VALUES:
        return given
    if not isinstance(given, (bool, str)) and hasattr(given, "__index__"):
        with suppress(TypeError):  # an array of several
            step = operator.index(given)
            if step in _INT64:
                return step
    known = ", ".join(map(repr, VALUES))
    raise InvalidInputError(f"value is {given!r}; it may be {known}, or a step, as 100.")


def _fields(given: Any) -> tuple[str, ...]:  # noqa: ANN401 - it is about to be checked
    """Return the fields of groups, of which one may come by itself."""
    listed = [given] if isinstance(given, str) else [] if given is None else given
    if hasattr(listed, "__iter__") and all(isinstance(each, str) for each in listed):
        return tuple(listed)
    message = f"by is {given!r}; it may be a field like 'params.lr', or a list of such."
    raise InvalidInputError(message)


@dataclass(frozen=True, slots=True)
class Source:
    """Where a statement finds the runs, each with its value.

    Attributes:
        runs: the table of runs.
        id: what tells runs apart, of `r`; runs that began at once stand in its order.
        tables: runs as `r`, their value as `s.value`, and the keys of a filter as `f0`, ...
        where: conditions, but for the next.
        has_value: the condition that a run has the metric; None where all of `tables` have it.
        step: SQL of the step of the value.
        fields: title and SQL of the fields of groups.
        params: values by name.
    """

    runs: str
    id: str
    tables: str
    where: tuple[str, ...]
    has_value: str | None
    step: str
    fields: tuple[tuple[str, str], ...]
    params: Mapping[str, Any]


def public_source(metric: str, ranking: Ranking, compiled: Compiled) -> Source:
    """Return the public views, with all values as literals.

    Args:
        metric: its key.
        ranking: what is asked for.
        compiled: its filter and fields.
    """
    if isinstance(ranking.value, str):
        step = "NULL::BIGINT" if ranking.value == "mean" else f"{ranking.value}_step"
        statistic = f'"{ranking.value}"'
        inner = _PUBLIC_VALUE.format(statistic=statistic, step=step, key=text_literal(metric))
    else:
        inner = _PUBLIC_VALUE_AT.format(step=ranking.value, key=text_literal(metric))
    joins = [f"\n    JOIN ({inner}\n    ) AS s ON s.run_id = r.run_id"]
    for number, column in enumerate(compiled.columns):
        inner = _public_key(column)
        joins.append(f"\n    LEFT JOIN ({inner}) AS f{number} ON f{number}.run_id = r.run_id")
    where = [f"r.lifecycle_stage = '{schema.ACTIVE}'"]
    if compiled.where != "true":
        where.append(f"({_spelled(compiled.where, compiled.params)})")
    if ranking.experiment_ids is not None:
        listed = ", ".join(map(text_literal, ranking.experiment_ids))
        where.append(f"r.experiment_id IN ({listed or 'NULL'})")
    return Source(
        runs="runs",
        id="r.run_id",
        tables=f"runs AS r{''.join(joins)}",
        where=tuple(where),
        has_value=None,
        step="s.step",
        fields=compiled.fields,
        params={},
    )


def rank_sql(source: Source, ranking: Ranking, *, with_id: bool = False) -> str:
    """Return the statement that ranks what a source holds.

    Args:
        source: the runs and their values.
        ranking: what is asked for.
        with_id: show the source's `id` too, as the last column.

    Raises:
        InvalidInputError: a field of `by` is there twice.
    """
    sign, way = ("-", "DESC") if ranking.goal == "max" else ("", "ASC")
    best_first = f"isnan(value), value {way}"
    groups = [f"by_{number}" for number in range(len(source.fields))]
    columns = [
        f"{source.id} AS id",
        "r.start_time",
        # Where every point is NaN there is no least, greatest or mean value.
        "coalesce(s.value, 'nan') AS value",
        f"{source.step} AS step",
        *(f"{sql} AS {name}" for name, (_, sql) in zip(groups, source.fields, strict=True)),
    ]
    where = [*source.where, *([] if source.has_value is None else [source.has_value])]
    statement = _STANDING.format(
        columns=",\n        ".join(columns),
        tables=source.tables,
        where="\n        AND ".join(where),
    )
    if groups:
        statement += _GROUPED.format(groups=", ".join(groups), sign=sign)
    return statement + _RANKED.format(
        best_first=best_first,
        shown=", ".join([*_shown(source), *(["best.id"] if with_id else [])]),
        rows="bests" if groups else "standing",
        limit="" if ranking.top is None else f"\n    LIMIT {ranking.top}",
        runs=source.runs,
        id=source.id,
    )


def lacking_sql(source: Source) -> str:
    """Return the statement that counts the runs which have no value."""
    where = [*source.where, f"NOT ({source.has_value})"]
    return f"SELECT count(*) FROM {source.tables}\nWHERE " + "\n    AND ".join(where)


def _shown(source: Source) -> list[str]:
    """Return the columns behind the rank."""
    titles = [title for title, _ in source.fields]
    if len(set(titles)) < len(titles):
        raise InvalidInputError(f"by names a field twice: {', '.join(titles)}.")
    fields = [
        f'by_{number} AS "{title.replace(chr(34), chr(34) * 2)}"'
        for number, title in enumerate(titles)
    ]
    return [
        *fields,
        *(f"r.{name}" for name in _RUN if name not in titles),
        *(_BEST + _GROUP if titles else _BEST),
        *(f"r.{name}" for name in ("status",) if name not in titles),
    ]


def _public_key(column: KeyColumn) -> str:
    """Return the query of one key's values by run."""
    statement = _PUBLIC_KEYS[column.entity]
    return statement.format(statistic=column.statistic, key=text_literal(column.key))


def _spelled(condition: str, params: Mapping[str, Any]) -> str:
    """Return a condition over our own tables as one over public views, values and all."""
    for inside, public in _SPELLINGS:
        condition = condition.replace(inside, public)
    return _BOUND.sub(lambda found: _literal(params[found[1]]), condition)


def _literal(value: object) -> str:
    """Return SQL that means exactly this value of a filter."""
    if isinstance(value, float):
        plain = repr(value)
        if not math.isfinite(value):
            return f"CAST('{plain}' AS DOUBLE)"
        # An exponent tells a double from a decimal.
        return plain if "e" in plain else f"{plain}e0"
    if isinstance(value, datetime):
        return f"TIMESTAMPTZ {text_literal(value.isoformat(sep=' '))}"
    return text_literal(str(value))
