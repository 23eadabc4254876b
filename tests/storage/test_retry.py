from __future__ import annotations

import json

import pytest

from runlake.storage import retry


class Answer(Exception):  # noqa: N818 - stands for the errors of the stores' libraries
    def __init__(self, status: int, code: str = "") -> None:
        """Say what botocore's errors say."""
        super().__init__(code)
        self.response = {
            "ResponseMetadata": {"HTTPStatusCode": status},
            "Error": {"Code": code},
        }


class NoCredentialsError(Exception):
    pass


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "error",
    [
        PermissionError("no"),
        ValueError("no such option"),
        NoCredentialsError(),
        OSError("Forbidden: b/o"),
        Answer(403),
        Answer(400, "InvalidArgument"),
        caused(OSError(22, "said"), Answer(405)),
        Answer(404, "NoSuchBucket"),
    ],
)
def test_refusals_are_permanent(error: Exception) -> None:
    assert retry.is_permanent(error)


@pytest.mark.parametrize(
    "error",
    [
        OSError(5, "broken"),
        TimeoutError(),
        ConnectionResetError(),
        json.JSONDecodeError("cut off", "{", 1),
        Answer(500),
        Answer(503, "SlowDown"),
        Answer(429),
        Answer(409, "ConditionalRequestConflict"),
        Answer(400, "RequestTimeout"),
        caused(OSError(22, "said"), Answer(503)),
    ],
)
def test_failures_of_the_store_or_the_way_are_transient(error: Exception) -> None:
    assert not retry.is_permanent(error)


def test_deadline_gives_growing_pauses_until_the_time_is_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 100.0
    monkeypatch.setattr("runlake.clock.monotonic_s", lambda: now)
    monkeypatch.setattr("runlake.ids.jitter", lambda: 0.5)
    deadline = retry.Deadline(30.0)
    pauses = []
    while (pause_s := deadline.pause_s()) is not None:
        pauses.append(pause_s)
        now += pause_s
    assert pauses[:7] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0]
    assert 20.0 < sum(pauses) <= 30.0
    assert deadline.left_s == pytest.approx(30.0 - sum(pauses))


def test_pauses_of_many_clients_differ() -> None:
    assert len({retry.Deadline(30.0).pause_s() for _ in range(20)}) > 15
