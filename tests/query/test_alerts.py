from __future__ import annotations

import random
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runlake import clock, questions
from runlake.errors import InvalidInputError, StateError
from runlake.lake import open_lake
from runlake.query.alerts import NOTHING, find_alerts
from runlake.settings import Settings
from runlake.storage.engine import Storage
from tests.writing.drains import StillDrain, memory_filesystem, start_run

if TYPE_CHECKING:
    from pathlib import Path

    from runlake.lake import Lake
    from runlake.query.bookmark import Cursor
    from runlake.query.engine import Query

writers = st.dictionaries(st.text(min_size=1), st.integers(0, 2**62))


class Host:
    """A host with a clock of its own, whose rows reach the store when the test says so."""

    def __init__(self, lake: Lake, folder: Path, name: str, skew_s: float) -> None:
        """Begin a run there."""
        self.settings = Settings(
            url=lake.url, journal=str(folder / name), cache=str(folder / "cache")
        )
        self._drain = StillDrain(Storage(lake._storage.fs, self.settings), self.settings)
        self._skew_us = round(skew_s * 1e6)
        self.run = start_run(self._drain, self.settings, name)
        self.count = 0

    def alert(self, monkeypatch: pytest.MonkeyPatch) -> str:
        """Give an alert by this host's clock; it stays here."""
        true_us = clock.now_us()
        with monkeypatch.context() as patch:
            patch.setattr(clock, "now_us", lambda: true_us + self._skew_us)
            self.count += 1
            title = f"{self.run.run_id} {self.count}"
            self.run.alert(title)
        return title

    def upload(self) -> None:
        """Bring everything to the store."""
        self._drain.serve()


def ask(
    lake: Lake,
    **wanted: Any,  # noqa: ANN401 - those of `find_alerts`
) -> tuple[list[dict[str, Any]], Cursor]:
    """Poll once, from a new snapshot."""
    lake.refresh()

    def answer(query: Query) -> tuple[list[dict[str, Any]], Cursor]:
        return find_alerts(query, **wanted)

    return questions.ask(lake, answer)


def titles(rows: list[dict[str, Any]]) -> list[str]:
    """Return what alerts say."""
    return [row["title"] for row in rows]


@pytest.mark.parametrize("seed", range(4))
def test_polling_gives_each_alert_once_whatever_clocks_and_networks_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    dice = random.Random(seed)  # noqa: S311 - which host does what
    given_out: list[str] = []
    had: list[str] = []
    cursor = NOTHING
    # The poller is another process: it does not bring to the store what these hosts have.
    monkeypatch.setattr("runlake.changes.drains_of", lambda _: [])
    with open_lake(tmp_path / "lake") as lake:
        lake._storage.ensure_lake()
        hosts = [
            Host(lake, tmp_path, f"host{n}", skew_s)
            for n, skew_s in enumerate((0, 3600, -3600, -86400))
        ]
        for _ in range(40):
            host = dice.choice(hosts)
            deed = dice.random()
            if deed < 0.5:
                given_out.append(host.alert(monkeypatch))
            elif deed < 0.75:
                host.upload()
            elif deed < 0.8:
                lake.maintain.compact()
            else:
                text = str(cursor)
                rows, cursor = ask(lake, cursor=NOTHING.read(text))
                had += titles(rows)
        for host in hosts:  # the last ones come days late, as far as their clocks are concerned
            host.upload()
        rows, cursor = ask(lake, cursor=cursor)
        had += titles(rows)
        assert sorted(had) == sorted(given_out)
        assert ask(lake, cursor=cursor)[0] == []


def test_an_alert_is_found_on_every_store(lake: Lake) -> None:
    with lake.start_run() as run:
        run.alert("here")
    rows, cursor = ask(lake)
    assert titles(rows) == ["here"]
    assert ask(lake, cursor=cursor)[0] == []


def test_alerts_tell_who_said_what_when_and_how_grave_it_is(tmp_path: Path) -> None:
    with open_lake(tmp_path / "lake") as lake:
        with lake.start_run("svm", experiment="digits") as run:
            run.alert("loss is NaN", "at step 7\n\x1b[31m", level="error")
            run.alert("done")
        rows, _ = ask(lake)
        view = lake.sql('SELECT level, title, text, run_id FROM alerts ORDER BY "at"').rows()
    assert view == [
        ("error", "loss is NaN", "at step 7\n\x1b[31m", run.run_id),
        ("info", "done", "", run.run_id),
    ]
    first = rows[0]
    assert (first["run_name"], first["experiment_name"]) == ("svm", "digits")
    assert (first["level"], first["title"], first["run_id"]) == ("error", "loss is NaN", run.run_id)
    assert abs(first["at"] - datetime.now(UTC)).total_seconds() < 60


def test_what_is_left_out_by_level_run_or_time_is_behind_the_cursor_all_the_same(
    tmp_path: Path,
) -> None:
    with open_lake(tmp_path / "lake") as lake:
        with lake.start_run() as one:
            one.alert("a", level="info")
            one.alert("b", level="warning")
        with lake.start_run() as two:
            two.alert("c", level="warning")
        rows, cursor = ask(lake, levels=["warning"])
        assert titles(rows) == ["b", "c"]
        assert titles(ask(lake, run_id=one.run_id)[0]) == ["a", "b"]
        assert titles(ask(lake, since=datetime.now(UTC))[0]) == []
        assert titles(ask(lake, cursor=cursor)[0]) == []


def test_a_lake_without_alerts_has_none(tmp_path: Path) -> None:
    with open_lake(tmp_path / "lake") as lake:
        lake.start_run().finish()
        assert ask(lake) == ([], NOTHING)


def test_alerts_of_a_purged_run_are_gone_and_later_ones_come(tmp_path: Path) -> None:
    with open_lake(tmp_path / "lake") as lake:
        with lake.start_run() as gone:
            gone.alert("gone")
        _, cursor = ask(lake)
        lake.maintain.purge([gone.run_id])
        assert titles(ask(lake)[0]) == []
        with lake.start_run() as run:
            run.alert("new")
        assert titles(ask(lake, cursor=cursor)[0]) == ["new"]


@given(writers, writers)
def test_a_cursor_read_back_has_had_what_it_had(had: dict[str, int], more: dict[str, int]) -> None:
    cursor = NOTHING.read(f" {NOTHING.after(had).after(more)}\n")
    for writer in {*had, *more}:
        assert cursor.floor(writer) == max(had.get(writer, -1), more.get(writer, -1))
    assert cursor.floor("nobody" * 9) == -1


@given(writers.filter(bool), st.data())
def test_a_cursor_that_was_cut_off_is_refused_or_has_had_less(
    had: dict[str, int], data: st.DataObject
) -> None:
    whole = str(NOTHING.after(had))
    cut = whole[: data.draw(st.integers(0, len(whole) - 1))]
    try:
        cursor = NOTHING.read(cut)
    except InvalidInputError:
        return
    assert all(cursor.floor(writer) <= seq for writer, seq in had.items())


@pytest.mark.parametrize("text", ["a1.!!!", "a1.x", "a1.ä"])
def test_what_is_no_cursor_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError, match="no cursor"):
        NOTHING.read(text)


def test_an_alert_is_checked_before_anything_is_written(tmp_path: Path) -> None:
    with open_lake(tmp_path / "lake") as lake:
        run = lake.start_run()
        with pytest.raises(InvalidInputError, match="info"):
            run.alert("title", level="fatal")
        for title in ("", "x" * 251, "two\nlines"):
            with pytest.raises(InvalidInputError):
                run.alert(title)
        with pytest.raises(InvalidInputError, match="bytes"):
            run.alert("title", "x" * (1 << 21))
        run.finish()
        with pytest.raises(StateError):
            run.alert("too late")
        assert ask(lake)[0] == []


def test_alerts_that_follow_each_other_share_an_upload_every_two_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(journal=str(tmp_path / "journals"), cache=str(tmp_path / "cache"))
    drain = StillDrain(Storage(memory_filesystem(), settings), settings)
    begin_s = now_s = clock.monotonic_s()
    monkeypatch.setattr(clock, "monotonic_s", lambda: now_s)
    run = start_run(drain, settings)
    drain.serve()
    uploads: list[float] = []
    waited: list[float] = []
    alerts: list[float] = []
    for _ in range(100):  # ten seconds
        run.alert("again")
        alerts.append(now_s)
        now_s += 0.1
        drain.serve_due()
        if not drain.pending:
            uploads.append(now_s - begin_s)
            waited += [now_s - said_s for said_s in alerts]
            alerts = []
    assert 5 <= len(uploads) <= 7
    assert max([*waited, *(now_s - said_s for said_s in alerts)]) <= 2.2
