"""Values as text: what JSON and CSV hold, exactly and the same wherever runlake writes them.

Times are ISO 8601 in UTC with microseconds, durations seconds, bytes hex digits, decimals their
own digits. Numbers that JSON lacks are the strings "NaN", "Infinity" and "-Infinity" there, so
that null always means absent; CSV has NaN, inf and -inf, and null is empty where an empty text
is `""`. A float is the shortest text that reads back as the same number.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, cast

from runlake._lazy import lazy
from runlake.storage import arrays

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa
else:
    pa = lazy("pyarrow")
    pl = lazy("polars")

_ISO: Final = "%Y-%m-%dT%H:%M:%S%.6f"
_ISO_NANOSECONDS: Final = "%Y-%m-%dT%H:%M:%S%.9f"
# The years 1 to 9999 in days since 1970, and how many of each unit a day has.
_FIRST_DAY: Final = -719_162
_END_DAY: Final = 2_932_897
_IN_DAY: Final = {"d": 1, "ms": 86_400_000, "us": 86_400_000_000, "ns": 86_400_000_000_000}
_INT64: Final = (-(2**63), 2**63 - 1)


def iso(moment: datetime) -> str:
    """Return a time as ISO 8601 in UTC, to the microsecond; one without a zone stays so."""
    if moment.tzinfo is None:
        return moment.isoformat(timespec="microseconds")
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def plain(value: object) -> Any:  # noqa: ANN401, PLR0911 - any JSON value; one answer for each type
    """Return what JSON can hold of one value."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Mapping):
        return {
            key if isinstance(key, str) else to_json(key): plain(held)
            for key, held in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, datetime):
        return iso(value)
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, bytes):
        return value.hex()
    return value.isoformat() if isinstance(value, (date, time)) else str(value)


def to_json(value: object) -> str:
    """Return one value as JSON on one line."""
    return json.dumps(plain(value), ensure_ascii=False)


def json_texts(column: pa.Array[Any]) -> pl.Series:
    """Return each value of a column as JSON.

    Args:
        column: of any type.

    Returns:
        Text of the same length, without nulls.
    """
    kind = column.type
    if _is_number(kind):
        texts = _number_texts(column, not_finite=('"NaN"', '"Infinity"', '"-Infinity"'))
    elif _is_time(kind):
        texts = '"' + _time_texts(column) + '"'
    elif is_text(kind):
        # Ids, keys and names come again and again: each is quoted once.
        coded = column.dictionary_encode()
        quoted = [json.dumps(each, ensure_ascii=False) for each in coded.dictionary.to_pylist()]
        texts = _series(arrays.strings(quoted).take(coded.indices))
    else:
        texts = _series(arrays.strings([to_json(each) for each in _values(column)]))
    return texts.fill_null("null")


def csv_texts(column: pa.Array[Any]) -> pl.Series:
    """Return each value of a column as CSV has it, not yet in quotes.

    Args:
        column: of any type.

    Returns:
        Text of the same length; null stays null.
    """
    kind = column.type
    if _is_number(kind):
        return _number_texts(column, not_finite=("NaN", "inf", "-inf"))
    if _is_time(kind):
        return _time_texts(column)
    if is_text(kind):
        return _series(column.cast(pa.string()))
    return _series(arrays.strings([csv_text(each) for each in _values(column)]))


def csv_text(value: object) -> str | None:
    """Return one value as CSV has it, not yet in quotes; None for null."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "inf" if value > 0 else "-inf"
    held = plain(value)
    return held if held is None or isinstance(held, str) else json.dumps(held, ensure_ascii=False)


def _is_number(kind: pa.DataType) -> bool:
    types = pa.types
    return (
        types.is_integer(kind)
        or types.is_floating(kind)
        or types.is_boolean(kind)
        or types.is_decimal(kind)
    )


def is_text(kind: pa.DataType) -> bool:
    """Tell whether a column holds text, in any of Arrow's forms."""
    types = pa.types
    if types.is_dictionary(kind):
        return is_text(cast("pa.DictionaryType[Any, Any]", kind).value_type)
    return types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)


def _number_texts(column: pa.Array[Any], *, not_finite: tuple[str, str, str]) -> pl.Series:
    numbers = _series(column)
    texts = numbers.cast(pl.String)
    if not numbers.dtype.is_float() or numbers.is_finite().all():
        return texts
    nan, high, low = not_finite
    return texts.replace({"NaN": nan, "inf": high, "-inf": low})


def _is_time(kind: pa.DataType) -> bool:
    return pa.types.is_timestamp(kind) or pa.types.is_date32(kind)


def _time_texts(column: pa.Array[Any]) -> pl.Series:
    """Return times and dates; those behind the years that ISO 8601 has are counts since 1970."""
    times = _series(column)
    unit, zone = getattr(times.dtype, "time_unit", "d"), getattr(times.dtype, "time_zone", None)
    counts = times.to_physical().cast(pl.Int64)
    low = max(_FIRST_DAY * _IN_DAY[unit], _INT64[0])
    high = min(_END_DAY * _IN_DAY[unit] - 1, _INT64[1])
    is_year = counts.is_between(low, high).fill_null(value=True)
    years = times if is_year.all() else times.set(~is_year, None)
    if unit == "d":
        texts = years.dt.strftime("%Y-%m-%d")
    else:
        pattern = _ISO_NANOSECONDS if unit == "ns" else _ISO
        if zone is not None:
            years, pattern = years.dt.convert_time_zone("UTC"), pattern + "Z"
        texts = years.dt.strftime(pattern)
    if is_year.all():
        return texts
    return texts.zip_with(is_year, counts.cast(pl.String) + f" {unit} since 1970")


def _series(column: pa.Array[Any]) -> pl.Series:
    return cast("pl.Series", pl.from_arrow(column))


def _values(column: pa.Array[Any]) -> list[Any]:
    return column.to_pylist(maps_as_pydicts="strict")
