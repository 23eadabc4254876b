"""One run's samples of the machine, and the one thread of a process that takes them all.

A sample never raises into the training: a reading that fails is left out of it. What a sample
is called depends on the process: ranks of one run each have their own keys.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Protocol

from runlake import clock
from runlake.errors import StorageError
from runlake.run_plan import own_rank
from runlake.schema import SYSTEM_PREFIX
from runlake.system.gpu import Gpus
from runlake.system.machine import Machine
from runlake.system.tree import Tree
from runlake.writing.notices import tell

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from runlake.run_log import RunLog
    from runlake.settings import Settings

PREFIX: Final = "system/"
"""Every key begins with it."""
LEAST_INTERVAL_S: Final = 0.1
"""Whatever is asked for, samples are no closer than this."""
# Over less than this CPU time says nothing; the last sample is then left out.
_LEAST_LAST_S: Final = 1.0
# So long the end of a run waits for the thread; a disk that hangs does not hold it up.
_END_S: Final = 2.0
# Who asks for no sample at all between the first and the last may say so with any number.
_LONGEST_S: Final = 3600.0
_SIZES: Final = ("WORLD_SIZE", "SLURM_NTASKS", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE")
_LOCAL_RANKS: Final = ("LOCAL_RANK", "SLURM_LOCALID", "OMPI_COMM_WORLD_LOCAL_RANK")


class Reader(Protocol):
    """Something that is read at each sample."""

    def parts(self) -> Iterable[Callable[[], dict[str, float]]]:
        """Return the readings, each of which may fail alone."""

    def close(self) -> None:
        """Let go of what it holds."""


class Sampler:
    """The samples of one run, from its begin to its end."""

    def __init__(
        self,
        log: RunLog,
        settings: Settings,
        *,
        readers: Callable[[], Sequence[Reader]] | None = None,
    ) -> None:
        """Begin; the first sample comes after one interval.

        Args:
            log: takes the samples.
            settings: tell the interval, and the node's name.
            readers: make what is read, in the thread; None reads this machine.
        """
        self._log = log
        self._make = readers or own_readers
        self._readers: Sequence[Reader] | None = None
        self._prefix = key_prefix(settings.system_metrics_node)
        self._interval_s = max(LEAST_INTERVAL_S, settings.system_metrics_interval_s)
        self._step = 0
        self._read_s = self.due_s = clock.monotonic_s()
        self.is_ending = False
        self.done = threading.Event()
        _rounds.join(self)

    def end(self) -> None:
        """Take the last sample, if it would say something, and stop."""
        _rounds.leave(self)

    @property
    def is_wanted(self) -> bool:
        """Whether the run still takes samples."""
        return self._log.is_open

    def serve(self, *, is_last: bool) -> None:
        """Take the sample that is due; in the thread.

        Args:
            is_last: the run ends.
        """
        now_s = clock.monotonic_s()
        if self._readers is None:
            self._readers = () if is_last else self._make()
        elif not is_last or now_s - self._read_s >= _LEAST_LAST_S:
            self._sample()
        self._read_s, self.due_s = now_s, now_s + self._interval_s
        if is_last:
            for reader in self._readers:
                reader.close()

    def _sample(self) -> None:
        found: dict[str, float] = {}
        for reader in self._readers or ():
            for part in reader.parts():
                try:
                    found.update(part())
                except Exception:  # noqa: BLE001, S112 - the others go on
                    continue
        keyed = {self._prefix + key: value for key, value in found.items()}
        if keyed:
            with suppress(StorageError):  # strict, and the journal is full: it may have room later
                self._log.metrics(keyed, self._step, clock.now_us())
            self._step += 1


def key_prefix(node: str | None = None, environ: Mapping[str, str] | None = None) -> str:
    """Return what the keys of this process begin with.

    Args:
        node: its name among the processes of a run, where somebody gave it one.
        environ: the environment; None means the process's own.

    Returns:
        `system/`; `system/<node>/`, or `system/rank_<n>/` for one rank of several.
    """
    environ = os.environ if environ is None else environ
    if node:
        return f"{SYSTEM_PREFIX}{node}/"
    rank, size = own_rank(environ), _first_number(_SIZES, environ)
    return SYSTEM_PREFIX if rank is None or size == 1 else f"{SYSTEM_PREFIX}rank_{rank}/"


def own_readers(environ: Mapping[str, str] | None = None) -> Sequence[Reader]:
    """Return what this process reads.

    Of the ranks of one host only the first reads the machine; each reads itself, and a GPU
    that it has to itself.

    Args:
        environ: the environment; None means the process's own.
    """
    environ = os.environ if environ is None else environ
    is_first = _first_number(_LOCAL_RANKS, environ) in {None, 0}
    machine, gpus = Machine(), Gpus(environ)
    readers: list[Reader] = [machine] if is_first else []
    readers.append(Tree(machine))
    if is_first or gpus.count == 1:
        readers.append(gpus)
    else:
        gpus.close()
    return readers


def _first_number(variables: Sequence[str], environ: Mapping[str, str]) -> int | None:
    found = (environ.get(variable, "") for variable in variables)
    return next((int(text) for text in found if text.isdigit()), None)


class _Rounds:
    """The thread that serves every sampler of this process, while there is one."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._samplers: list[Sampler] = []
        self._thread: threading.Thread | None = None

    def join(self, sampler: Sampler) -> None:
        with self._changed:
            if self._thread is None:
                thread = threading.Thread(target=self._serve, name="runlake-system", daemon=True)
                thread.start()
                self._thread = thread
            self._samplers.append(sampler)
            self._changed.notify()

    def leave(self, sampler: Sampler) -> None:
        with self._changed:
            thread = self._thread
            sampler.is_ending = True
            self._changed.notify()
        if not sampler.done.wait(_END_S):
            tell("a reading of system metrics does not end; the run ends without it.")
        elif thread is not None and self._thread is not thread:
            thread.join(_END_S)  # this run was its last: no thread is left behind

    def _serve(self) -> None:
        while due := self._wait():
            for sampler in due:
                is_last = sampler.is_ending
                try:
                    sampler.serve(is_last=is_last)
                except Exception as error:  # noqa: BLE001 - training goes on, and other runs
                    is_last = True
                    if sampler.is_wanted:
                        tell(f"no more system metrics: {type(error).__name__}: {error}.")
                if is_last:
                    self._let_go(sampler)

    def _wait(self) -> list[Sampler]:
        """Return those that are due; none at all when this thread is to end."""
        with self._changed:
            while self._thread is threading.current_thread():
                now_s = clock.monotonic_s()
                due = [each for each in self._samplers if each.is_ending or each.due_s <= now_s]
                if due:
                    return due
                wait_s = min(each.due_s for each in self._samplers) - now_s
                self._changed.wait(min(wait_s, _LONGEST_S))
            return []

    def _let_go(self, sampler: Sampler) -> None:
        with self._changed:
            self._samplers.remove(sampler)
            if not self._samplers:
                self._thread = None  # the next sampler brings a new one
        sampler.done.set()


_rounds = _Rounds()


def _after_fork_in_child() -> None:
    """Begin anew: the parent's runs are not sampled by the child, which has no such thread."""
    global _rounds  # noqa: PLW0603 - one for each process
    _rounds = _Rounds()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
