"""What an import did, and everything that is not in the lake as it was in the source."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from runlake.importers.source import Note

_SHOWN: Final = 5


@dataclass(slots=True)
class Loss:
    """Things that do not come as the tracker had them, for one reason.

    Attributes:
        what: the reason.
        count: how many values it concerns.
        runs: how many runs.
        examples: some of the runs, each with what it is about.
    """

    what: str
    count: int = 0
    runs: int = 0
    examples: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Report:
    """What one import, or one way out, did.

    Attributes:
        kind: of the tracker.
        source: where it was read.
        target: where it was written.
        runs: runs that were found.
        brought: runs that came new.
        grown: runs of which more came.
        already: runs of which everything was there.
        unread: those among them that were not read again: the sizes and times of their files are
            what they were when they came.
        failed: runs that did not come, or not as they were; `problems` says why.
        experiments: names of the experiments that runs or their own being brought.
        points: metric points that came.
        params: params that came.
        tags: tags that came.
        inputs: data sets of runs that came.
        events: other events that came, as histograms.
        artifacts: files that came.
        artifact_bytes: their length.
        logged_models: logged models that came.
        models: registered models that came.
        versions: versions of models that came.
        checked: runs that were read back from the target and compared.
        seconds: how long it took.
        losses: what is not there as it was, by reason.
        problems: what went wrong, a sentence each.
    """

    kind: str
    source: str
    target: str
    runs: int = 0
    brought: int = 0
    grown: int = 0
    already: int = 0
    unread: int = 0
    failed: int = 0
    experiments: list[str] = field(default_factory=list)
    points: int = 0
    params: int = 0
    tags: int = 0
    inputs: int = 0
    events: int = 0
    artifacts: int = 0
    artifact_bytes: int = 0
    logged_models: int = 0
    models: int = 0
    versions: int = 0
    checked: int = 0
    seconds: float = 0.0
    losses: list[Loss] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    @property
    def is_sound(self) -> bool:
        """Whether nothing went wrong."""
        return not self.problems

    @property
    def is_exact(self) -> bool:
        """Whether everything is there as it was."""
        return not self.problems and not self.losses

    def add(self, **more: int) -> None:
        """Count more of something.

        Args:
            more: by the name of the attribute.
        """
        with self._lock:
            for name, count in more.items():
                setattr(self, name, getattr(self, name) + count)

    def lose(self, run: str, notes: Iterable[Note]) -> None:
        """Take in what of one run does not come as it was.

        Args:
            run: its id in the source; empty: it is of no run.
            notes: what.
        """
        seen: set[str] = set()
        with self._lock:
            for note in notes:
                loss = next((each for each in self.losses if each.what == note.what), None)
                if loss is None:
                    loss = Loss(note.what)
                    self.losses.append(loss)
                loss.count += note.count
                if run and note.what not in seen:
                    loss.runs += 1
                    seen.add(note.what)
                if len(loss.examples) < _SHOWN:
                    loss.examples.append(": ".join(filter(None, (run, note.about))))

    def fail(self, problem: str) -> None:
        """Take in what went wrong.

        Args:
            problem: a sentence.
        """
        with self._lock:
            self.problems.append(problem)

    def as_dict(self) -> dict[str, Any]:
        """Return everything as JSON can hold it, `is_sound` and `is_exact` among it."""
        found: dict[str, Any] = {"is_sound": self.is_sound, "is_exact": self.is_exact}
        for each in fields(self):
            value = getattr(self, each.name)
            if each.name == "losses":
                value = [{name: getattr(loss, name) for name in Loss.__slots__} for loss in value]
            if not each.name.startswith("_"):
                found[each.name] = value
        return found
