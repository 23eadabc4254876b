"""What MLflow's words mean here, wherever it keeps them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from runlake.importers.source import Note, SourceInput

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PARENT: Final = "mlflow.parentRunId"
USER: Final = "mlflow.user"
CONTEXT: Final = "mlflow.data.context"
NO_DATA_SET: Final = "the data set that a metric was measured on is not kept with the point"
"""Why a point does not come as it was; reports count notes by their text."""
_GREATEST: Final = math.nextafter(math.inf, 0)


def millis(given: object) -> int | None:
    """Return MLflow's milliseconds as microseconds; None where there are none, or 0."""
    return None if given in {None, "", 0} else int(str(given)) * 1000


def input_of(about: Mapping[str, Any], tags: Mapping[str, str]) -> SourceInput:
    """Return a data set from MLflow's description of it, and its tags."""
    return SourceInput(
        name=str(about["name"]),
        digest=str(about["digest"]),
        source=_text(about.get("source")),
        source_type=_text(about.get("source_type")),
        schema=_text(about.get("schema")),
        profile=_text(about.get("profile")),
        context=tags.get(CONTEXT) or None,
        tags={key: text for key, text in tags.items() if key != CONTEXT},
    )


class Steps:
    """Steps as whole numbers, and how many were none: SQLite and files keep whatever came."""

    def __init__(self) -> None:
        """Nothing was met yet."""
        self._broken = 0
        self._greatest = 0

    def whole(self, given: object) -> int:
        """Return a step; the part behind the point is cut, and counted."""
        try:
            return int(given)  # type: ignore[call-overload, no-any-return]
        except ValueError:
            pass
        number = float(given.decode() if isinstance(given, bytes) else str(given))
        self._broken += number != int(number)
        return int(number)

    def cut(self, given: float) -> int:
        """Return a step that may be a float."""
        if isinstance(given, int):
            return given
        self._broken += given != int(given)
        return int(given)

    def meet(self, value: float) -> None:
        """Take note of a value that may stand for an infinity."""
        self._greatest += abs(value) == _GREATEST

    def notes(self) -> Iterator[Note]:
        """Yield what was met."""
        if self._broken:
            what = "step was no whole number: what is behind the point is cut"
            yield Note(what, "", self._broken)
        if self._greatest:
            what = "value is the greatest float, which MLflow's databases keep for an infinity"
            yield Note(what, "", self._greatest)


def _text(given: object) -> str | None:
    return None if given is None else str(given)
