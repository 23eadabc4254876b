"""How runs stand: the words of their writers on it, and those set for a run as a whole.

The rule is in `runlake.query.folded`, and in `docs/spec/v1.md`, "Status of a run".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runlake import schema
from runlake._lazy import lazy
from runlake.storage import arrays

if TYPE_CHECKING:
    from collections.abc import Collection

    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc
    from numpy.typing import NDArray

    from runlake.query.facts import Facts, Writers
else:
    np = lazy("numpy")
    pa = lazy("pyarrow")
    pc = lazy("pyarrow.compute")


def fold_words(facts: Facts, writers: Writers, *, is_fresh: NDArray[np.bool_]) -> dict[str, Any]:
    """Return the status of each run, when it ended, and whether it is quiet.

    Args:
        facts: of the snapshot.
        writers: of these facts.
        is_fresh: by run code, whether any writer of the run is fresh.

    Returns:
        `status`, `is_quiet`, `is_set` and `end_us`, by run code.
    """
    count = len(facts.runs.values)
    rows = facts.rows(schema.STATUS)
    was_set = facts.keys.codes[rows] == facts.keys.code_of(schema.STATUS_SET)
    words, own = rows[was_set], rows[~was_set]
    pairs = facts.runs_of(own) * len(facts.writers.values)
    own = facts.stand(own, pairs + facts.writers.codes[own], latest=True)
    words = facts.stand(words, facts.runs_of(words), latest=True)
    latest = np.concatenate([own, words])
    latest = facts.stand(latest, facts.runs_of(latest), latest=True)
    is_set, has_word = np.zeros(count, bool), np.zeros(count, bool)
    has_word[facts.runs_of(latest)] = True
    is_set[facts.runs_of(latest[np.isin(latest, words)])] = True
    own = _behind(facts, own, words)
    runs, sayers, said = facts.runs_of(own), facts.writers.codes[own], facts.values("str", own)

    def some(wanted: Collection[str], is_meant: NDArray[np.bool_]) -> NDArray[np.bool_]:
        says = pc.is_in(said, value_set=arrays.strings(sorted(wanted)))
        flags = arrays.truths(says)
        return np.bincount(runs, weights=flags & is_meant[sayers], minlength=count) > 0

    is_heard = some(schema.OPEN, writers.is_fresh)
    status = pc.coalesce(facts.spread("str", latest), arrays.text(schema.RUNNING))
    for word in (schema.SCHEDULED, schema.RUNNING):
        is_said = arrays.flags(some({word}, writers.is_open))
        status = pc.if_else(is_said, arrays.text(word), status)
    ends = facts.spread("num", latest).cast(pa.int64(), safe=False)
    known_ends = pc.coalesce(ends, facts.spread("clock", latest))
    return {
        "status": status,
        "is_quiet": arrays.flags(np.where(has_word & ~is_set, ~is_heard, ~is_fresh)),
        "is_set": arrays.flags(is_set),
        "end_us": pc.if_else(arrays.flags(is_set), ends, known_ends),
    }


def _behind(facts: Facts, own: NDArray[np.int64], words: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the own words of writers that no word set for their run came after.

    Args:
        facts: of the snapshot.
        own: one of each writer and run at most.
        words: what was set, one of each run at most.
    """
    if not len(words):
        return own
    order = facts.order(np.concatenate([own, words]))
    last = np.full(len(facts.runs.values), -1)
    last[facts.runs_of(words)] = order[len(own) :]
    return own[order[: len(own)] > last[facts.runs_of(own)]]
