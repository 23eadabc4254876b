"""Frames, tables and arrays of other libraries, as what a digest can be taken of.

None of these libraries is imported: what somebody gives is there already, and is known by where
its class comes from.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from runlake import arguments
from runlake._lazy import lazy
from runlake.errors import InvalidInputError

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from runlake.dataset import content
    from runlake.dataset.content import Content
else:
    np = lazy("numpy")
    pa = lazy("pyarrow")
    content = lazy("runlake.dataset.content")

_LIBRARIES: Final = frozenset({"pandas", "polars", "pyarrow", "numpy"})
_ALONE: Final = "data"


def is_data(given: object) -> bool:
    """Tell whether something holds data, rather than to describe a data set."""
    if isinstance(given, Mapping):
        return True
    # A frame has a `name` and a `digest` where its columns are called so.
    return hasattr(given, "__arrow_c_stream__") or bool(_libraries(given) & _LIBRARIES)


def describe(given: object, *, digest: str | None) -> Content:
    """Describe what somebody holds in their hands.

    Args:
        given: a frame, series, table, array, or mapping of names to arrays.
        digest: in place of the computed one.

    Returns:
        Digest, schema and profile.

    Raises:
        InvalidInputError: it is none of these, or of types that have no digest.
    """
    made = _made(given)
    if isinstance(made, dict):
        return content.of_arrays(made, digest=digest)
    return content.of_table(made, digest=digest)


def _made(given: Any) -> pa.Table | dict[str, Any]:  # noqa: ANN401 - of any library
    """Return a table, or arrays by name."""
    libraries = _libraries(given)
    try:
        if isinstance(given, Mapping) and given:
            return {str(name): _array(values) for name, values in given.items()}
        if "numpy" in libraries and hasattr(given, "shape"):
            return {_ALONE: np.asarray(given)}
        if "pandas" in libraries:
            frame = given if hasattr(given, "columns") else given.to_frame()
            return pa.Table.from_pandas(frame)
        if "polars" in libraries and hasattr(given, "collect"):
            message = "a LazyFrame holds no data yet; give log_input frame.collect()."
            raise InvalidInputError(message)
        if "polars" in libraries:
            table: pa.Table = (given if hasattr(given, "columns") else given.to_frame()).to_arrow()
            return table
        if hasattr(given, "__arrow_c_stream__") or isinstance(given, pa.RecordBatch):
            return pa.table(given)
    except (pa.ArrowException, TypeError, ValueError) as error:
        message = (
            f"the {type(given).__name__} cannot be read as a table: {error} Give its digest, if "
            "you know one: runlake.Dataset(name=..., digest=...)."
        )
        raise InvalidInputError(message) from error
    message = (
        "a data set is made of a frame, a table, an array, a mapping of names to arrays, paths or "
        f"URLs; got {arguments.told(given)}."
    )
    raise InvalidInputError(message)


def _array(values: Any) -> Any:  # noqa: ANN401 - an array of any library
    """Return an array of NumPy; of torch's and others' on the processor without a copy."""
    detach = getattr(values, "detach", None)
    return np.asarray(detach().cpu() if callable(detach) else values)


def _libraries(given: object) -> set[str]:
    """Return what a class and those that it is made from belong to."""
    return {each.__module__.partition(".")[0] for each in type(given).__mro__}
