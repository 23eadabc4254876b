"""Arrays as callers give them: of NumPy, torch, JAX or whatever turns into NumPy.

Nothing here imports torch or JAX: their arrays are known by what they can do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runlake._lazy import lazy

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
else:
    np = lazy("numpy")


def array(given: object) -> NDArray[Any] | None:
    """Return an array as NumPy has it, from whatever device; None if it is no array.

    Args:
        given: anything; of a tensor that has gradients the values are taken.
    """
    if isinstance(given, np.ndarray):
        return given
    try:
        if callable(getattr(given, "detach", None)):
            return _tensor(given)
        if callable(getattr(given, "__array__", None)):
            return _array(given)
    except (TypeError, RuntimeError):
        # Sparse, or nested, or of a type that NumPy does not know.
        return None
    return None


def _tensor(given: Any) -> NDArray[Any]:  # noqa: ANN401 - a tensor of torch
    values = given.detach().cpu()
    try:
        found = values.numpy()
    except TypeError:
        # NumPy has no bfloat16.
        found = values.float().numpy()
    return np.asarray(found)


def _array(given: Any) -> NDArray[Any]:  # noqa: ANN401 - an array of whatever library
    try:
        found = np.asarray(given)
    except TypeError:
        # CuPy's leave their device only when told to.
        found = np.asarray(given.get())
    return found
