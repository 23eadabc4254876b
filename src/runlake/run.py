"""One run, as the training code sees it: the write half.

Calls that log rows check their input, put the rows into the local journal and return; they
never wait for the store and never raise because it is ill.
"""

from __future__ import annotations

import math
import struct
import traceback
from typing import TYPE_CHECKING, Final, Protocol, Self

from runlake import arguments, clock, run_names, schema
from runlake._lazy import lazy
from runlake.dataset import input_rows
from runlake.errors import InvalidInputError, RunlakeError, StorageError
from runlake.redaction import REDACTED, redactor
from runlake.run_files import RunFiles
from runlake.run_log import RunLog
from runlake.run_plan import LiveInfo, RunPlan, opening_rows
from runlake.writing import columns, histograms, lifecycle, values
from runlake.writing.events import to_json
from runlake.writing.notices import tell

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from types import TracebackType

    from runlake.artifacts.sending import Place
    from runlake.artifacts.store import Artifacts
    from runlake.query import card
    from runlake.query.entities import RunData, RunRecord
    from runlake.settings import Settings
    from runlake.writing.drain import Drain
    from runlake.writing.events import Row
else:  # most runs are never looked at
    card = lazy("runlake.query.card")

_now_ns: Final = clock.now_ns
HURRY_EVERY_S: Final = 2.0
"""At most this often a run hurries the upload; what comes in between shares the next one."""


class Companion(Protocol):
    """What runs beside a run, see `runlake.companions`."""

    def end(self) -> None:
        """Log what is left and be gone when this returns; in a bounded time."""


class Run(RunFiles):
    """The record of one training job, open for writing by this process.

    Use it as a context manager: the run ends FINISHED, or FAILED with the traceback when the
    block raises. Any thread may log. A forked child may log too; it never ends the run.

    Attributes:
        is_open: whether it takes more rows from this process; read for each logged value.
    """

    def __init__(
        self,
        plan: RunPlan,
        drain: Drain,
        artifacts: Artifacts,
        settings: Settings,
        *,
        read: Callable[[str], RunRecord],
        tags: Mapping[str, object],
        params: dict[str, str],
    ) -> None:
        """Begin the run; use `Lake.start_run` or `runlake.start_run` instead."""
        self._plan = plan
        self._drain = drain
        self._artifacts = artifacts
        self._settings = settings
        self._read = read
        self._params = params
        self._redactor = redactor(settings.redact)
        self._next_step = 0
        self._companions: list[Companion] = []
        self._hurried_s = -math.inf
        self._paths = set()
        self._log = RunLog(plan, drain, settings)
        self._log.begin(opening_rows(plan) + self._tag_rows(tags.items()))
        self.is_open = True
        lifecycle.watch_run(self)

    # What it is.

    @property
    def run_id(self) -> str:
        """The run's id."""
        return self._plan.run_id

    @property
    def info(self) -> LiveInfo:
        """What is fixed about the run, with MLflow's names."""
        plan = self._plan
        return LiveInfo(
            run_id=plan.run_id,
            experiment_id=plan.experiment_id,
            run_name=plan.run_name or run_names.auto_name(plan.run_id),
            status=self._log.status,
            start_time=plan.start_us // 1000,
            artifact_uri=self._artifacts.uri(plan.experiment_id, plan.run_id),
        )

    @property
    def data(self) -> RunData:
        """Params, metrics and tags as the lake holds them now; flushes and reads."""
        return self._read(self.run_id).data

    def __repr__(self) -> str:
        """Name the run and where it stands."""
        info = self.info
        return f"<Run {info.run_name!r} {info.run_id} {info.status}>"

    def _repr_html_(self) -> str:
        """Return it as notebooks show it: with what the lake holds now; flushes and reads."""
        try:
            return self._read(self.run_id)._repr_html_()
        except (RunlakeError, OSError):  # to be looked at must not fail
            return card.card(self.info, None, {})

    # Metrics.

    def log_metric(self, key: str, value: object, step: int = 0, timestamp: object = None) -> None:
        """Log one point of one metric.

        Args:
            key: 1 to 250 printable characters.
            value: one number: Python, NumPy, torch or JAX scalar, Decimal, bool; NaN and
                infinities are kept.
            step: any 64-bit whole number, in any order.
            timestamp: an aware datetime, or milliseconds since 1970; None means now.

        Raises:
            InvalidInputError: the key, value, step or timestamp is none of these.
            StateError: the run has ended.
            StorageError: only when strict, and the journal is full.
        """
        # The path of nearly every call; everything unusual goes the careful way below.
        if type(value) is float and timestamp is None:
            journal, key_ids = self._log.bound
            try:
                if journal.point(key_ids[key], step, _now_ns() // 1000, value):
                    return
            except (KeyError, TypeError, struct.error):
                pass
        number = values.number(key, value)
        whole = values.step(step)
        moment = clock.now_us() if timestamp is None else values.time_us(timestamp)
        self._log.points([(key, number)], whole, moment)

    def log_metrics(
        self, metrics: Mapping[str, object], step: int = 0, timestamp: object = None
    ) -> None:
        """Log one point of each of several metrics, all or none.

        Args:
            metrics: values by key, see `log_metric`.
            step: of all of them.
            timestamp: of all of them; None means now.

        Raises:
            InvalidInputError: one of them is wrong; none is logged.
            StateError: the run has ended.
        """
        moment = clock.now_us() if timestamp is None else values.time_us(timestamp)
        self._log.metrics(metrics, step if type(step) is int else values.step(step), moment)

    def log(self, metrics: Mapping[str, object], step: int | None = None) -> None:
        """Log one point of each of several metrics; the step counts on by itself.

        Args:
            metrics: values by key, see `log_metric`.
            step: of all of them; None means one more than the step before, from 0.

        Raises:
            InvalidInputError: one of them is wrong; none is logged.
            StateError: the run has ended.
        """
        whole = self._next_step if step is None else step
        if type(whole) is not int:
            whole = values.step(whole)
        self._log.metrics(metrics, whole, _now_ns() // 1000)
        self._next_step = whole + 1

    def log_batch(
        self,
        metrics: Iterable[object] = (),
        params: Mapping[str, object] | Iterable[object] = (),
        tags: Mapping[str, object] | Iterable[object] = (),
    ) -> None:
        """Log metrics, params and tags together.

        Args:
            metrics: (key, value, step) or (key, value, step, timestamp) tuples, or objects
                with MLflow's attributes `key`, `value`, `timestamp`, `step`.
            params: a mapping, (key, value) pairs, or objects with `key` and `value`.
            tags: as params.

        Raises:
            InvalidInputError: one of them is wrong; nothing is logged.
            StateError: the run has ended.
        """
        points = [values.batch_point(metric) for metric in arguments.several("metrics", metrics)]
        rows = self._param_rows(values.pairs(params)) + self._tag_rows(values.pairs(tags))
        self._events(rows)
        for key, number, step, moment in points:
            self._log.points([(key, number)], step, moment)

    def log_history(self, data: object) -> None:
        """Log whole columns of points at once.

        The rows lie in the local journal, as finished segments, when this returns.

        Args:
            data: an Arrow table, Polars or pandas frame, or mapping of names to arrays. Wide:
                a column `step` and one column per metric; long: columns `key`, `step`,
                `value`. Either may have `timestamp`. Nulls are no points; NaN is one.

        Raises:
            InvalidInputError: columns are missing or of the wrong type; nothing is logged.
            StateError: the run has ended.
            StorageError: the local disk is full.
        """
        self._log.check_open()
        points = columns.points_of(data, now_us=clock.now_us())
        experiment = self._plan.experiment_id, self._plan.experiment_name
        try:
            while not self._drain.columns(*experiment).add(self.run_id, points):
                pass
        except OSError as error:
            message = f"log_history could not write to the journal: {error}"
            raise StorageError(message) from error

    def log_histogram(
        self,
        key: str,
        values: object = None,
        *,
        bins: int = 64,
        edges: object = None,
        counts: object = None,
        step: int = 0,
    ) -> None:
        """Log how values are distributed, as counts between edges; never waits for the store.

        NaN is counted apart, and so is what lies below the first edge and above the last,
        infinities among them. The view `histograms` shows all of it.

        Args:
            key: 1 to 250 printable characters.
            values: numbers of any shape: an array, a tensor, a list.
            bins: number of bins of equal width from the least to the greatest finite value.
            edges: bounds of the bins, rising, instead of `bins`.
            counts: with `edges` and instead of `values`: what was counted elsewhere.
            step: any 64-bit whole number, in any order.

        Raises:
            InvalidInputError: these do not make a histogram.
            StateError: the run has ended.
        """
        self._log.check_open()
        text = histograms.text_of(key, values, bins=bins, edges=edges, counts=counts, step=step)
        self._events([(self.run_id, schema.HISTOGRAM, key, None, text)])

    # Params and tags.

    def log_param(self, key: str, value: object) -> object:
        """Log one param and return its value.

        Args:
            key: 1 to 250 printable characters.
            value: kept as text, with the number beside it where it is one. Of a key that names a
                secret, as `api_key`, `<redacted>` is kept; see the setting `redact`.

        Returns:
            The value, as it was given.

        Raises:
            InvalidInputError: the key or value is wrong, or the param has another value.
            StateError: the run has ended.
        """
        self._events(self._param_rows([(key, value)]))
        return value

    def log_params(self, params: Mapping[str, object]) -> None:
        """Log params, all or none; nested mappings are flattened with dots.

        Args:
            params: values by key; also a dataclass instance or an argparse namespace.

        Raises:
            InvalidInputError: one is wrong, or has another value already; none is logged.
            StateError: the run has ended.
        """
        self._events(self._param_rows(values.flatten(params)))

    def set_tag(self, key: str, value: object) -> None:
        """Set a tag; a tag may change, the latest stands.

        Args:
            key: 1 to 250 printable characters.
            value: kept as text.

        Raises:
            InvalidInputError: the key or value is wrong.
        """
        self._events(self._tag_rows([(values.name("tag", key), value)]))

    def set_tags(self, tags: Mapping[str, object]) -> None:
        """Set several tags, all or none; see `set_tag`.

        Args:
            tags: values by key.

        Raises:
            InvalidInputError: one is wrong; none is set.
        """
        self._events(self._tag_rows(arguments.mapping("tags", tags).items()))

    def delete_tag(self, key: str) -> None:
        """Take a tag away; a tag that is not there is fine.

        Args:
            key: of the tag.

        Raises:
            InvalidInputError: the key is wrong.
        """
        self._events([(self.run_id, schema.TAG, values.name("tag", key), None, None)])

    def log_input(self, dataset: object, context: str | None = None) -> None:
        """Log that the run read a data set; of one that you hold, the digest is computed here.

        Args:
            dataset: a `runlake.Dataset`, one of MLflow's, or anything else with `name` and
                `digest`; or what `runlake.Dataset.of` takes: a frame, arrays, a path, a URL.
            context: what the run read it for, as `training`; of one data set in several
                contexts, all are kept.

        Raises:
            InvalidInputError: it is no data set, or a part of it is too long.
            StateError: the run has ended.
        """
        self._events(input_rows(self.run_id, dataset, context))

    # For those who watch.

    def alert(self, title: str, text: str = "", *, level: str = "info") -> None:
        """Say something that people or programs wait for; it goes out at once.

        `runlake alerts` lists and polls what was said, the view `alerts` has it in SQL.

        Args:
            title: 1 to 250 printable characters.
            text: what there is to say besides.
            level: `info`, `warning` or `error`.

        Raises:
            InvalidInputError: one of them is wrong.
            StateError: the run has ended.
        """
        if arguments.text("level", level) not in schema.ALERT_LEVELS:
            message = f"the level of an alert is one of {schema.ALERT_LEVELS}, got {level!r}."
            raise InvalidInputError(message)
        said = {"title": values.name("alert", title), "text": values.text("alert", title, text)}
        self._events([(self.run_id, schema.ALERT, level, None, to_json(said))])
        self._hurry()

    # Its end.

    def flush(self, timeout_s: float | None = None) -> None:
        """Return when every row logged before is in the store.

        Args:
            timeout_s: seconds to wait; None takes the setting `close_timeout_s`.

        Raises:
            StorageError: the store refused or did not answer; the rows stay in the journal.
        """
        limit = arguments.seconds("timeout_s", timeout_s)
        limit = self._settings.close_timeout_s if limit is None else limit
        self._drain.flush(limit)

    def finish(self, status: str = schema.FINISHED, end_time: object = None) -> None:
        """End the run; what was logged goes out at once, without waiting for it.

        Args:
            status: FINISHED, FAILED or KILLED.
            end_time: an aware datetime or milliseconds since 1970; None means now.

        Raises:
            InvalidInputError: there is no such status.
        """
        if arguments.text("status", status) not in schema.ENDED:
            message = f"a run ends with one of {sorted(schema.ENDED)}, got {status!r}."
            raise InvalidInputError(message)
        if not (self._log.is_open and self._log.is_ours):
            return
        moment = clock.now_us() if end_time is None else values.time_us(end_time)
        if not self._end_companions():
            return
        self._events([(self.run_id, schema.STATUS, "", float(moment), status)])
        self.is_open = False
        self._log.end(status)
        lifecycle.forget_run(self)

    def __enter__(self) -> Self:
        """Return the run."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the run: FAILED with the traceback if the block raised, KILLED by a signal."""
        self._finish_with(error)

    def _finish_with(self, error: BaseException | None) -> None:
        """End the run as its block ended.

        Args:
            error: what the block raised; a signal (SIGTERM, Ctrl-C) makes the run KILLED.
        """
        if error is None or (isinstance(error, SystemExit) and error.code in {None, 0}):
            self.finish(schema.FINISHED)
        elif isinstance(error, KeyboardInterrupt | lifecycle.Terminated):
            self.finish(schema.KILLED)
        else:
            text = values.printable("".join(traceback.format_exception(error)))
            text = text[-schema.TEXT_LIMIT_BYTES // 4 :]
            if self._log.is_open and self._log.is_ours:
                self._events([(self.run_id, schema.NOTE, "traceback", None, text)])
            self.finish(schema.FAILED)

    # Inside.

    def _accompany(self, companion: Companion) -> None:
        """Have something that runs beside this run end with it, the last first."""
        self._companions.append(companion)

    def _end_companions(self) -> bool:
        """Return False if another thread has ended the run meanwhile."""
        while self._companions:
            try:
                self._companions.pop().end()
            except Exception as error:  # noqa: BLE001 - the run ends all the same
                tell(f"beside run {self.run_id}: {type(error).__name__}: {error}.")
        return self._log.is_open

    def _place(self) -> Place:
        return self._plan.experiment_id, self.run_id

    def _events(self, rows: list[Row]) -> None:
        self._log.events(rows)
        for run_id, kind, key, _, text in rows:
            if kind == schema.PARAM and run_id == self.run_id and text is not None:
                self._params[key] = text

    def _hurry(self) -> None:
        # A loop of alerts must not be a loop of requests.
        now_s = clock.monotonic_s()
        if now_s >= self._hurried_s + HURRY_EVERY_S:
            self._hurried_s = now_s
            self._drain.soon()
            return
        if now_s >= self._hurried_s:
            self._hurried_s += HURRY_EVERY_S  # when the next one is due
        self._drain.soon(self._hurried_s - now_s)

    def _param_rows(self, params: Iterable[tuple[str, object]]) -> list[Row]:
        rows: list[Row] = []
        seen: dict[str, str] = {}
        for key, value in params:
            text = values.text("param", values.name("param", key), value)
            number = values.number_beside(value)
            known = self._params.get(key, seen.get(key))
            if self._redactor.is_secret(key):
                # Whatever it was before the pattern was set, nothing more is said of it.
                text, number = known or REDACTED, None
            if known is None:
                seen[key] = text
                rows.append((self.run_id, schema.PARAM, key, number, text))
            elif known != text:
                message = (
                    f"param {key!r} of run {self.run_id} is {known[:80]!r} already and cannot "
                    f"become {text[:80]!r}. Use a tag for what changes, or another run."
                )
                raise InvalidInputError(message)
        return rows

    def _tag_rows(self, tags: Iterable[tuple[str, object]]) -> list[Row]:
        return [
            (self.run_id, schema.TAG, values.name("tag", key), None, values.text("tag", key, value))
            for key, value in tags
        ]
