"""Figures of Matplotlib and Plotly as files; neither is imported here."""

from __future__ import annotations

import io
import struct
from typing import TYPE_CHECKING, Any, Final

from runlake import arguments
from runlake._lazy import need
from runlake.artifacts.media import FIGURE, Medium
from runlake.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_PNG_HEADER: Final = struct.Struct(">16xII")


def drawn(figure: object, suffix: str, *, save_kwargs: Mapping[str, Any] | None = None) -> Medium:
    """Return a figure as a file.

    Args:
        figure: a Matplotlib figure, or anything with a `savefig` or a `figure` that has one; or
            a Plotly figure.
        suffix: of the file; empty means `.png` for Matplotlib, `.html` for Plotly.
        save_kwargs: for `savefig`, or for Plotly's `to_html`, `to_json` or `to_image`.

    Returns:
        The figure; of a PNG with `width` and `height` in pixels.

    Raises:
        InvalidInputError: it is no figure, or cannot be written so.
        MissingDependencyError: Plotly needs kaleido for this format.
    """
    given = dict(save_kwargs or {})
    if callable(getattr(figure, "to_html", None)) and callable(getattr(figure, "to_image", None)):
        return _plotly(figure, suffix or f".{given.pop('format', 'html')}", given)
    for candidate in (figure, getattr(figure, "figure", None), getattr(figure, "fig", None)):
        if callable(getattr(candidate, "savefig", None)):
            return _matplotlib(candidate, suffix or f".{given.get('format', 'png')}", given)
    raise InvalidInputError(
        f"a figure is one of Matplotlib or Plotly, got {arguments.kind(figure)}. Other libraries "
        "write HTML: run.log_html(text, 'chart.html'), or images: run.log_image."
    )


def _matplotlib(figure: Any, suffix: str, given: dict[str, Any]) -> Medium:  # noqa: ANN401 - optional
    file = io.BytesIO()
    given["format"] = suffix.removeprefix(".")
    try:
        figure.savefig(file, **given)
    except (ValueError, TypeError) as error:
        message = f"Matplotlib cannot write the figure as {suffix!r}: {error}"
        raise InvalidInputError(message) from error
    data = file.getvalue()
    details: dict[str, object] = {}
    if suffix == ".png":
        details["width"], details["height"] = _PNG_HEADER.unpack_from(data)
    return Medium(FIGURE, data, suffix, details)


def _plotly(figure: Any, suffix: str, given: dict[str, Any]) -> Medium:  # noqa: ANN401 - optional
    if suffix in {".html", ".htm"}:
        # 4 MB of script in each file would be the other way; who is offline may ask for it.
        return _text(figure.to_html, {"include_plotlyjs": "cdn", **given}, suffix)
    if suffix == ".json":
        return _text(figure.to_json, given, suffix)
    need("kaleido")
    try:
        data = figure.to_image(format=suffix.removeprefix("."), **given)
    except Exception as error:
        # Kaleido starts a browser, and fails with whatever that fails with.
        raise InvalidInputError(
            f"Plotly cannot draw the figure as {suffix!r}: {error}. As .html or .json it needs "
            "nothing."
        ) from error
    return Medium(FIGURE, data, suffix)


def _text(write: Callable[..., str], given: dict[str, Any], suffix: str) -> Medium:
    try:
        return Medium(FIGURE, write(**given).encode(), suffix)
    except (ValueError, TypeError) as error:
        message = f"Plotly cannot write the figure as {suffix!r}: {error}"
        raise InvalidInputError(message) from error
