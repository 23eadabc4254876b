"""What the record log of a W&B run says of it: everything but its history.

Numbers of fields are those of W&B's `wandb_internal.proto`, which keeps them stable: each of its
own releases reads the files of all earlier ones.
"""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from runlake import schema
from runlake.importers.histories import Row, moment_us, whole_step
from runlake.importers.source import SourceError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from runlake.importers.wandb_log import RecordLog
    from runlake.importers.wire import Message

# Fields of a record: which kind it is.
HISTORY, SUMMARY, OUTPUT, CONFIG, STATS, ARTIFACT = 2, 3, 4, 5, 7, 8
ALERT, METRIC, OUTPUT_RAW, RUN, EXIT, USE_ARTIFACT, ENVIRONMENT = 10, 12, 13, 17, 18, 25, 26
# Fields of an item: its value, in one of these forms.
_BOOL, _WHOLE, _NUMBER, _TEXT, _JSON, _VALUE_JSON = 4, 5, 6, 7, 8, 16
_START, _BRANCH = 17, 23  # of a run: when it began, where it was forked
_STEP: Final = 2  # of a row
_ALERT_LEVELS: Final = {"INFO": "info", "WARN": "warning", "ERROR": "error"}
OWN_KEY: Final = "_wandb"


@dataclass
class WandbAlert:
    """One alert: level as ours, title, text, microseconds since 1970."""

    level: str
    title: str
    text: str
    time_us: int | None


@dataclass
class WandbRun:
    """One run as its log has it when it is read to its end; empty or None: not said.

    Attributes:
        run_id: unique in its project only.
        entity: user or team.
        project: where it lies.
        group: of runs that belong together.
        job_type: as `train`.
        name: as people call it.
        notes: what people wrote of it.
        labels: W&B's tags.
        sweep_id: the search of parameters that it was part of.
        host: the machine.
        start_us: when it began, microseconds since 1970.
        commit: of the code.
        remote: the code's repository.
        config: as it was at the end.
        summary: likewise.
        exit_code: None: the run never ended.
        runtime_s: as W&B counted it, whole seconds.
        environment: of the process: os, python, program, user.
        alerts: in order.
        used: names, types and ids of artifacts that it read.
        artifacts: that it made.
        metrics: W&B's definitions of metrics.
        forked_from: the run and step that it was forked from.
        last_us: the latest time that a sample or a line of output says.
        has_output: whether the log has lines of output.
        ended: of each log that has an end, its place among the logs, and the summary's keys that
            were set in it.
    """

    run_id: str = ""
    entity: str = ""
    project: str = ""
    group: str = ""
    job_type: str = ""
    name: str = ""
    notes: str = ""
    labels: list[str] = field(default_factory=list)
    sweep_id: str = ""
    host: str = ""
    start_us: int | None = None
    commit: str = ""
    remote: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    exit_code: int | None = None
    runtime_s: int = 0
    environment: dict[str, str] = field(default_factory=dict)
    alerts: list[WandbAlert] = field(default_factory=list)
    used: list[dict[str, str]] = field(default_factory=list)
    artifacts: list[Message] = field(default_factory=list)
    metrics: list[dict[str, str]] = field(default_factory=list)
    forked_from: str = ""
    last_us: int | None = None
    has_output: bool = False
    ended: dict[int, dict[str, Any]] = field(default_factory=dict)
    _count: int = 0
    _set: set[str] = field(default_factory=set)

    @property
    def is_ended(self) -> bool:
        """Whether the log that was read last says how the run ended."""
        return self.exit_code is not None

    @property
    def status(self) -> str:
        """Ours: a run without an exit was killed, or is killed if this was all."""
        if self.exit_code is None:
            return schema.KILLED
        return schema.FAILED if self.exit_code else schema.FINISHED

    def read(self, log: RecordLog) -> None:
        """Take in a log; a run that was resumed has several.

        Raises:
            SourceError: the file is damaged.
        """
        takers = {
            RUN: self.begin,
            CONFIG: self._config,
            SUMMARY: self._summary,
            EXIT: self._exit,
            ENVIRONMENT: self._environment,
            ALERT: self._alert,
            USE_ARTIFACT: self._use,
            ARTIFACT: self.artifacts.append,
            METRIC: self._metric,
            STATS: self._sample,
            OUTPUT: self._output,
            OUTPUT_RAW: self._output,
        }
        self.exit_code = None
        self._set.clear()
        for record in log.records():
            for number, take in takers.items():
                if number in record:
                    take(record.inner(number))
        if self.is_ended:
            standing = {key: value for key, value in self.summary.items() if key in self._set}
            self.ended[self._count] = copy.deepcopy(standing)
        self._count += 1

    def begin(self, run: Message) -> None:
        """Take in the record that says whose log it is."""
        self.run_id = run.text(1) or self.run_id
        self.entity = run.text(2) or self.entity
        self.project = run.text(3) or self.project
        self.group = run.text(6) or self.group
        self.job_type = run.text(7) or self.job_type
        self.name = run.text(8) or self.name
        self.notes = run.text(9) or self.notes
        self.labels = run.texts(10) or self.labels
        self.sweep_id = run.text(12) or self.sweep_id
        self.host = run.text(13) or self.host
        if _START in run:
            began = time_us(run.inner(_START))
            self.start_us = began if self.start_us is None else min(began, self.start_us)
        git = run.inner(21)
        self.remote, self.commit = git.text(1) or self.remote, git.text(2) or self.commit
        if _BRANCH in run:
            branch = run.inner(_BRANCH)
            self.forked_from = f"{branch.text(1)}@{branch.double(2):g}"
        self._config(run.inner(4))
        self._summary(run.inner(5))

    def _config(self, change: Message) -> None:
        update(self.config, change)

    def _summary(self, change: Message) -> None:
        update(self.summary, change)
        self._set.update((item.texts(2) or [item.text(1)])[0] for item in change.inners(1))

    def _exit(self, exit_: Message) -> None:
        self.exit_code, self.runtime_s = exit_.whole(1), exit_.whole(2)

    def _environment(self, environment: Message) -> None:
        found = {
            "os": environment.text(1),
            "python": environment.text(2),
            "program": environment.text(6) or environment.text(7),
            "username": environment.text(13),
        }
        self.environment.update({key: text for key, text in found.items() if text})
        git = environment.inner(9)
        self.remote, self.commit = git.text(1) or self.remote, git.text(2) or self.commit

    def _alert(self, alert: Message) -> None:
        level = _ALERT_LEVELS.get(alert.text(3), "info")
        self.alerts.append(WandbAlert(level, alert.text(1), alert.text(2), self.last_us))

    def _use(self, used: Message) -> None:
        self.used.append({"id": used.text(1), "type": used.text(2), "name": used.text(3)})

    def _metric(self, metric: Message) -> None:
        said = {"name": metric.text(1), "glob": metric.text(2), "step_metric": metric.text(4)}
        self.metrics.append({key: text for key, text in said.items() if text})

    def _sample(self, sample: Message) -> None:
        self.last_us = max(self.last_us or 0, time_us(sample.inner(2)))

    def _output(self, output: Message) -> None:
        self.has_output = True
        self.last_us = max(self.last_us or 0, time_us(output.inner(2)))


def time_us(stamp: Message) -> int:
    """Return a timestamp in microseconds since 1970; what is finer is cut off."""
    return stamp.whole(1) * 1_000_000 + stamp.whole(2) // 1000


def update(target: dict[str, Any], change: Message) -> None:
    """Apply a change of the config or summary."""
    for item in change.inners(1):
        put(target, item.texts(2) or [item.text(1)], item_value(item))
    for item in change.inners(2):
        path = item.texts(2) or [item.text(1)]
        inner: Any = target
        for part in path[:-1]:
            inner = inner.get(part) if isinstance(inner, dict) else None
        if isinstance(inner, dict):
            inner.pop(path[-1], None)


def put(target: dict[str, Any], path: list[str], value: object) -> None:
    """Set a value in nested dicts.

    Args:
        target: the outermost one.
        path: keys, the outermost first.
        value: of the last key.
    """
    for part in path[:-1]:
        inner = target.get(part)
        if not isinstance(inner, dict):
            inner = target[part] = {}
        target = inner
    target[path[-1]] = value


def item_value(item: Message) -> object:
    """Return the value of an item: as JSON, or as one of the fields that newer clients write."""
    if _VALUE_JSON in item:
        return _json(item.text(_VALUE_JSON))
    if _BOOL in item:
        return bool(item.whole(_BOOL))
    if _WHOLE in item:
        return item.zigzag(_WHOLE)
    if _NUMBER in item:
        return item.double(_NUMBER)
    if _JSON in item:
        return _json(item.text(_JSON))
    return item.text(_TEXT) if _TEXT in item else None


def _json(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError as error:
        raise SourceError(f"a value of W&B is no JSON: {text[:80]!r} ({error}).") from error


def history(logs: Iterable[RecordLog], start_us: int) -> Iterator[Row]:
    """Yield the rows of a run's history, without W&B's own keys.

    Args:
        logs: of the run, in the order of their begins.
        start_us: when the run began: the time of rows that have none and no running time.

    Raises:
        SourceError: a file is damaged.
    """
    following = 0
    for log in logs:
        for record in log.records():
            if HISTORY not in record:
                continue
            row = record.inner(HISTORY)
            values: dict[str, Any] = {}
            for item in row.inners(1):
                put(values, item.texts(2) or [item.text(1)], item_value(item))
            stamp, ran = values.pop("_timestamp", None), values.pop("_runtime", None)
            step = values.pop("_step", None)
            if step is None:
                step = row.inner(_STEP).whole(1) if _STEP in row else following
            values.pop(OWN_KEY, None)
            step = whole_step(step)
            following = step + 1
            moment = start_us
            if stamp is not None:
                moment = moment_us(stamp)
            elif ran is not None:
                moment = start_us + moment_us(ran)
            yield Row(step, moment, values)


def samples(logs: Iterable[RecordLog]) -> Iterator[Row]:
    """Yield what W&B measured of the machine, counted from 0.

    Raises:
        SourceError: a file is damaged.
    """
    count = 0
    for log in logs:
        for record in log.records():
            if STATS in record:
                sample = record.inner(STATS)
                found = {
                    f"{schema.SYSTEM_PREFIX}{item.text(1)}": item_value(item)
                    for item in sample.inners(3)
                }
                yield Row(count, time_us(sample.inner(2)), found)
                count += 1


def output(logs: Iterable[RecordLog]) -> Iterator[str]:
    """Yield what the run printed, in pieces.

    Raises:
        SourceError: a file is damaged.
    """
    for log in logs:
        for record in log.records():
            for number in (OUTPUT, OUTPUT_RAW):
                if number in record:
                    yield record.inner(number).text(3)
