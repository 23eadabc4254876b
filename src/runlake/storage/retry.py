"""When a failed request is worth another try, and how long to wait before it.

Each library of a far store has its own tree of errors, so an error is judged by the HTTP
status and code found anywhere in its chain of causes, and by the name of its class.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Final, final

from runlake import clock, ids

_FIRST_PAUSE_S: Final = 0.1
_LONGEST_PAUSE_S: Final = 5.0
_SHARE: Final = 0.6
_CLIENT_ERRORS: Final = range(400, 500)
_PASSING_STATUS: Final = {408, 409, 412, 425, 429}
_PASSING_CODES: Final = {"RequestTimeout", "IncompleteBody", "BadDigest", "SlowDown"}
_NO_BUCKET_CODES: Final = {"NoSuchBucket", "ContainerNotFound", "ContainerBeingDeleted"}
_LOST_CODES: Final = {"NoSuchUpload", "InvalidPart", "InvalidPartOrder", "InvalidBlockList"}
_REFUSALS: Final = (PermissionError, ValueError, TypeError, LookupError, ImportError)
_REFUSAL_NAMES: Final = {
    "ClientAuthenticationError",  # azure
    "CredentialUnavailableError",
    "DefaultCredentialsError",  # google
    "RefreshError",
    "NoCredentialsError",  # botocore
    "PartialCredentialsError",
    "CredentialRetrievalError",
    "TokenRetrievalError",
    "UnauthorizedSSOTokenError",
    "ProfileNotFound",
    "ParamValidationError",
    "NoRegionError",
}


@final
class Deadline:
    """The time that one operation has, all its tries together."""

    def __init__(self, timeout_s: float) -> None:
        """Start the clock."""
        self._end_s = clock.monotonic_s() + timeout_s
        self._pause_s = _FIRST_PAUSE_S

    @property
    def left_s(self) -> float:
        """Seconds that are left; 0 if none."""
        return max(0.0, self._end_s - clock.monotonic_s())

    @property
    def share_s(self) -> float:
        """Seconds for one try: not all that is left, so that a try that hangs is not the last."""
        return _SHARE * self.left_s

    def pause_s(self) -> float | None:
        """Return the seconds to wait before the next try; None if there is no time for one.

        Pauses double; each is spread over half to one and a half of itself, so that many
        clients that failed together do not come back together.
        """
        pause_s = self._pause_s * (0.5 + ids.jitter())
        self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)
        return pause_s if pause_s < self.left_s else None


def status(error: BaseException) -> int | None:
    """Return the HTTP status behind an error, None if no cause carries one."""
    return next((found for found, _ in _answers(error) if found is not None), None)


def is_bucket_missing(error: BaseException) -> bool:
    """Tell whether the store said that the bucket itself is not there."""
    return any(code in _NO_BUCKET_CODES for _, code in _answers(error))


def is_upload_lost(error: BaseException) -> bool:
    """Tell whether parts that were sent are gone: another has ended or swept the upload."""
    return any(code in _LOST_CODES for _, code in _answers(error))


def is_permanent(error: BaseException) -> bool:
    """Tell whether the same request would fail again: refused, malformed, not configured."""
    answers = list(_answers(error))
    if any(code in _PASSING_CODES for _, code in answers):
        return False
    if any(code in _NO_BUCKET_CODES for _, code in answers):
        return True
    statuses = [found for found, _ in answers if found is not None]
    if statuses:
        return statuses[0] in _CLIENT_ERRORS and statuses[0] not in _PASSING_STATUS
    return any(_is_refusal(cause) for cause in _chain(error))


def _is_refusal(error: BaseException) -> bool:
    if isinstance(error, json.JSONDecodeError):  # an answer that was cut off
        return False
    if isinstance(error, _REFUSALS) or type(error).__name__ in _REFUSAL_NAMES:
        return True
    return isinstance(error, OSError) and str(error).startswith("Forbidden")  # gcsfs, status 403


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and its causes; what was merely being handled is no cause."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__


def _answers(error: BaseException) -> Iterator[tuple[int | None, str]]:
    """Yield the HTTP status and the store's code of each cause."""
    for cause in _chain(error):
        response = getattr(cause, "response", None)
        if isinstance(response, Mapping):  # botocore
            said = response.get("Error") or {}
            found = (response.get("ResponseMetadata") or {}).get("HTTPStatusCode")
            yield _number(found), str(said.get("Code", ""))
        else:  # azure; gcsfs and google; aiohttp
            found = getattr(cause, "status_code", None) or getattr(cause, "code", None)
            found = found or getattr(cause, "status", None)
            yield _number(found), str(getattr(cause, "error_code", None) or "")


def _number(found: object) -> int | None:
    text = str(found)
    return int(text) if text.isdecimal() else None
