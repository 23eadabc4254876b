"""Which columns an answer may have: those that a frame and a file hold as they are.

DuckDB has types that Arrow has not. It gives some of them out as bytes that only DuckDB reads, a
time without its offset, or a number cut off at 127 bits; of others Polars and Parquet know
nothing. Such an answer is refused before it is computed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

from runlake.errors import InvalidInputError

if TYPE_CHECKING:
    import duckdb
    from duckdb.sqltypes import DuckDBPyType

_STRANGE: Final = frozenset({"bignum", "time with time zone", "uhugeint", "union", "variant"})
_NESTED: Final = frozenset({"array", "list", "map", "struct"})
_INTERVAL: Final = "interval"


def refuse_strange(relation: duckdb.DuckDBPyRelation) -> None:
    """Refuse a relation of which a column cannot be given out as it is.

    Args:
        relation: not yet run.

    Raises:
        InvalidInputError: a column is of such a type; names both, and what to write.
    """
    for name, kind in zip(relation.columns, relation.types, strict=True):
        if _is_strange(kind):
            raise InvalidInputError(
                f"the answer's column {name!r} is of type {kind}, which frames and files cannot "
                f'hold. Write CAST(… AS VARCHAR) AS "{name}".'
            )


def _is_strange(kind: DuckDBPyType) -> bool:
    if kind.id not in _NESTED:
        return kind.id in _STRANGE
    held = [cast("DuckDBPyType", child) for _, child in kind.children]
    if kind.id == "array":
        del held[1:]  # its length
    # A dictionary needs keys that are no dictionaries or lists.
    has_nested_key = kind.id == "map" and held[0].id in _NESTED
    return has_nested_key or any(_is_strange(each) or each.id == _INTERVAL for each in held)
