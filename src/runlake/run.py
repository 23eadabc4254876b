"""One run, as the training code sees it: the write half.

Calls that log rows check their input, put the rows into the local journal and return; they
never wait for the store and never raise because it is ill.
"""

from __future__ import annotations

import struct
import traceback
from typing import TYPE_CHECKING, Any, Final, Self

from runlake import clock, run_names, schema
from runlake.dataset import input_row
from runlake.errors import InvalidInputError, StorageError
from runlake.run_log import RunLog
from runlake.run_plan import LiveInfo, RunPlan, opening_rows
from runlake.writing import columns, lifecycle, values

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path
    from types import TracebackType

    from runlake.artifacts.store import Artifacts
    from runlake.query.entities import RunData, RunRecord
    from runlake.settings import Settings
    from runlake.writing.drain import Drain
    from runlake.writing.events import Row

_now_ns: Final = clock.now_ns


class Run:
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
        self._next_step = 0
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
        points = [values.batch_point(metric) for metric in metrics]
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

    # Params and tags.

    def log_param(self, key: str, value: object) -> object:
        """Log one param and return its value.

        Args:
            key: 1 to 250 printable characters.
            value: kept as text, with the number beside it where it is one.

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
        self.set_tags({key: value})

    def set_tags(self, tags: Mapping[str, object]) -> None:
        """Set several tags, all or none; see `set_tag`.

        Args:
            tags: values by key.

        Raises:
            InvalidInputError: one is wrong; none is set.
        """
        self._events(self._tag_rows(tags.items()))

    def delete_tag(self, key: str) -> None:
        """Take a tag away; a tag that is not there is fine.

        Args:
            key: of the tag.

        Raises:
            InvalidInputError: the key is wrong.
        """
        self._events([(self.run_id, schema.TAG, values.name("tag", key), None, None)])

    def log_input(self, dataset: object, context: str | None = None) -> None:
        """Log that the run read a data set.

        Args:
            dataset: a `runlake.Dataset`, one of MLflow's, or anything else with `name` and
                `digest`; its `source` and `source_type` are kept where it has them.
            context: what the run read it for, as `training`; of one data set in several
                contexts, all are kept.

        Raises:
            InvalidInputError: it is no data set, or a part of it is too long.
            StateError: the run has ended.
        """
        self._events([input_row(self.run_id, dataset, context)])

    # Artifacts.

    def log_artifact(self, local_path: str | Path, artifact_path: str | None = None) -> None:
        """Upload one file, or a folder with all below it; returns when it is in the store.

        Args:
            local_path: the file or folder.
            artifact_path: folder below the run to put it in; None is the run's own.

        Raises:
            InvalidInputError: there is no such file, or the path leaves the run.
            StorageError: the store refused.
        """
        self._log.check_open()
        for row in self._artifacts.put(self._place(), local_path, folder=artifact_path):
            self._events([row])

    def log_artifacts(self, local_dir: str | Path, artifact_path: str | None = None) -> None:
        """Upload all files below a folder; returns when they are in the store.

        Args:
            local_dir: the folder; its own name is left out.
            artifact_path: folder below the run to put them in; None is the run's own.

        Raises:
            InvalidInputError: there is no such folder, or the path leaves the run.
            StorageError: the store refused.
        """
        self._log.check_open()
        for row in self._artifacts.put_all(self._place(), local_dir, folder=artifact_path):
            self._events([row])

    def log_text(self, text: str, artifact_file: str) -> None:
        """Write text as an artifact, in UTF-8; returns when it is in the store.

        Args:
            text: the content.
            artifact_file: path below the run, as `notes/summary.txt`.

        Raises:
            InvalidInputError: the path leaves the run.
            StorageError: the store refused.
        """
        self._log.check_open()
        self._events([self._artifacts.put_bytes(self._place(), artifact_file, data=text.encode())])

    def log_dict(self, dictionary: Mapping[str, Any] | list[Any], artifact_file: str) -> None:
        """Write a mapping or list as an artifact: YAML where the path ends so, else JSON.

        Args:
            dictionary: what JSON can hold.
            artifact_file: path below the run, as `config.json` or `config.yaml`.

        Raises:
            InvalidInputError: the path leaves the run, or the value cannot be written so.
            MissingDependencyError: YAML is asked for and PyYAML is not installed.
            StorageError: the store refused.
        """
        self._log.check_open()
        self._events([self._artifacts.put_dict(self._place(), artifact_file, value=dictionary)])

    # Its end.

    def flush(self, timeout_s: float | None = None) -> None:
        """Return when every row logged before is in the store.

        Args:
            timeout_s: seconds to wait; None takes the setting `close_timeout_s`.

        Raises:
            StorageError: the store refused or did not answer; the rows stay in the journal.
        """
        limit = self._settings.close_timeout_s if timeout_s is None else timeout_s
        self._drain.flush(limit)

    def finish(self, status: str = schema.FINISHED, end_time: object = None) -> None:
        """End the run; what was logged goes out at once, without waiting for it.

        Args:
            status: FINISHED, FAILED or KILLED.
            end_time: an aware datetime or milliseconds since 1970; None means now.

        Raises:
            InvalidInputError: there is no such status.
        """
        if status not in schema.ENDED:
            message = f"a run ends with one of {sorted(schema.ENDED)}, got {status!r}."
            raise InvalidInputError(message)
        if not (self._log.is_open and self._log.is_ours):
            return
        moment = clock.now_us() if end_time is None else values.time_us(end_time)
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
        self.finish_with(error)

    def finish_with(self, error: BaseException | None) -> None:
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

    def _place(self) -> tuple[str, str]:
        return self._plan.experiment_id, self.run_id

    def _events(self, rows: list[Row]) -> None:
        self._log.events(rows)
        for run_id, kind, key, _, text in rows:
            if kind == schema.PARAM and run_id == self.run_id and text is not None:
                self._params[key] = text

    def _param_rows(self, params: Iterable[tuple[str, object]]) -> list[Row]:
        rows: list[Row] = []
        seen: dict[str, str] = {}
        for key, value in params:
            text = values.text("param", values.name("param", key), value)
            known = self._params.get(key, seen.get(key))
            if known is None:
                seen[key] = text
                number = values.number_beside(value)
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
