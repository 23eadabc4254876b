"""Conditions of promotions: what was required of the run that made a version, and what it had."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from runlake._lazy import lazy
from runlake.errors import NotFoundError

if TYPE_CHECKING:
    from runlake.query import condition
    from runlake.registry.reading import House
else:
    condition = lazy("runlake.query.condition")


class Ruling(NamedTuple):
    """How a promotion was decided.

    Attributes:
        about: what the audit trail keeps of it.
        refusal: why it is refused, with what the run has; None if it is not.
    """

    about: dict[str, Any]
    refusal: str | None


def judge(house: House, run_id: str | None, require: str | None) -> Ruling:
    """Decide a promotion.

    Args:
        house: of the lake.
        run_id: the run that made the version, None where nobody said.
        require: a condition in the language of `search_runs`; None requires nothing.

    Returns:
        The ruling; where the run cannot be known, a refusal.

    Raises:
        InvalidInputError: the condition is empty.
        FilterSyntaxError: the condition cannot be read.
        StorageError: the store cannot be read.
    """
    if require is None:
        return _ruling(run_id, None, {}, None)
    condition.check(require)
    if run_id is None:
        return _ruling(
            run_id, require, {}, f"{require!r} is required, and nobody said which run made it."
        )
    house.refresh()
    try:
        verdict = house.ask(lambda query: condition.judge(query, run_id, require))
    except NotFoundError:
        return _ruling(run_id, require, {}, f"the run {run_id} that made it is gone.")
    if verdict.is_met:
        return _ruling(run_id, require, verdict.found, None)
    has = ", ".join(f"{name} {_said(value)}" for name, value in verdict.found.items())
    refusal = f"{require!r} is required of its run {run_id}, which has {has}."
    return _ruling(run_id, require, verdict.found, refusal)


def _ruling(
    run_id: str | None, require: str | None, found: dict[str, Any], refusal: str | None
) -> Ruling:
    value = "promoted" if refusal is None else "refused"
    about = {"value": value, "require": require, "run_id": run_id, "found": found}
    return Ruling(about, refusal)


def _said(value: object) -> str:
    return "that is not there" if value is None else f"= {value!r}"
