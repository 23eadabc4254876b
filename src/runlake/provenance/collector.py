"""Find out once for each process where its runs come from, and tell every run.

A run that begins gets what is known already in one write to the journal. What has to be found
out first is found by a thread, which ends when nothing waits; runs that have ended meanwhile
get their rows all the same. The end of the process, and the close of a lake, wait for it in a
bounded time; then git is ended, and what is known is what is kept.
"""

from __future__ import annotations

import hashlib
import os
import sys
import threading
from collections import deque
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from runlake import clock, schema
from runlake._lazy import lazy
from runlake.provenance.start import Start
from runlake.redaction import redactor
from runlake.run_plan import user
from runlake.settings import provenance_parts
from runlake.writing import lifecycle, values
from runlake.writing.events import to_json

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from runlake.provenance import git, packages, process
    from runlake.redaction import Redactor
    from runlake.run import Run
    from runlake.run_plan import RunPlan
    from runlake.settings import Settings
    from runlake.writing.events import Row
else:
    # Loaded by the thread: they load much themselves.
    git = lazy("runlake.provenance.git")
    packages = lazy("runlake.provenance.packages")
    process = lazy("runlake.provenance.process")

# What git told is asked again for a run that begins later than that.
FRESH_S: Final = 10.0
# The thread lets the start of the run go first, unless somebody waits for it.
_PAUSE_S: Final = 0.05
# Git gets so long at the end of a process.
WAIT_S: Final = 5.0
_HURRIED_S: Final = 0.2
# Runs that follow each other faster name the run that holds the patch.
PATCH_EACH_S: Final = 1.0
_ANSWERS: Final = 32

PATCH: Final = "provenance/diff.patch"
_TAGS: Final = {
    "mlflow.source.git.commit": "commit",
    "mlflow.source.git.branch": "branch",
    "mlflow.source.git.repoURL": "remote",
}
_NONE: Final[Mapping[str, str]] = {}
_TYPE_TAG: Final = "mlflow.source.type"
_RANKS: Final = ("RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "PMI_RANK")
_LOCAL_RANKS: Final = ("LOCAL_RANK", "SLURM_LOCALID", "OMPI_COMM_WORLD_LOCAL_RANK")


class _Wish(NamedTuple):
    """What is to be kept; runs that want the same share the texts that say it."""

    parts: frozenset[str]
    redact: str | None
    start: Start
    pid: int


class _Subject(NamedTuple):
    """A run that is to be told."""

    run: Run
    wish: _Wish

    @property
    def plan(self) -> RunPlan:
        return self.run._plan  # noqa: SLF001 - runs are told of as from inside

    @property
    def lake(self) -> str:
        """The URL of the run's lake."""
        return self.run._settings.url  # noqa: SLF001 - as above

    def tell(self, answer: _Answer) -> None:
        """Log what is known.

        Tags are as of just before the run began, so that whatever the user sets stands.
        """
        log, run_id = self.run._log, self.run.run_id  # noqa: SLF001 - as above
        tags: list[Row] = [
            (run_id, schema.TAG, key, None, text) for key, text in answer.tags.items()
        ]
        if tags:
            log.late(tags, clock_us=self.plan.start_us - 1)
        log.late(
            [(run_id, schema.PROVENANCE, part, None, text) for part, text in answer.texts.items()]
        )

    def path(self, patch: str) -> str:
        """Return where the run keeps its patch; of one that goes on, each session has its own."""
        if not self.plan.is_joined:
            return PATCH
        digest = hashlib.sha256(_bytes(patch)).hexdigest()
        return f"{PATCH.removesuffix('.patch')}-{digest[:8]}.patch"

    def put(self, path: str, patch: str) -> None:
        """Put the patch into the run's artifacts."""
        run = self.run
        place = run._place()  # noqa: SLF001 - it writes into the run that it tells of
        row = run._artifacts.put_bytes(place, path, data=_bytes(patch))  # noqa: SLF001 - as above
        run._log.late([row])  # noqa: SLF001 - as above


class _Found(NamedTuple):
    """What git told, as runs are told it: without secrets."""

    at_s: float
    said: Mapping[str, Any]
    patch: str | None = None
    tags: Mapping[str, str] = _NONE
    folder: str | None = None
    marks: tuple[int, ...] = ()

    def text(self, diff: str | None, *, why: str | None = None) -> str:
        """Return it as JSON.

        Args:
            diff: where the patch is: a path in the run, or the URI of another's.
            why: why it could not be kept.
        """
        said = dict(self.said)
        if diff is not None:
            said["diff"] = diff
        if why is not None:
            said["unknown"] = {**said.get("unknown", {}), "diff": why}
        return values.printable(to_json(said))

    @property
    def is_fresh(self) -> bool:
        """Whether it holds for a run that begins now: files may have changed lately."""
        return git.marks(self.folder) == self.marks and clock.monotonic_s() - self.at_s < FRESH_S


class _Answer(NamedTuple):
    """All that one run is to be told.

    Attributes:
        texts: JSON by part.
        tags: by key.
        patch: to be put into the run's artifacts; None where there is none, or another run of
            this process has got it just now.
        found: what git told; None where nobody asked.
    """

    texts: Mapping[str, str]
    tags: Mapping[str, str]
    patch: str | None = None
    found: _Found | None = None


class Collector:
    """What this process knows of itself, and the runs that wait for more."""

    def __init__(self) -> None:
        """Know nothing yet."""
        self._lock = threading.Lock()
        self._waiting: deque[_Subject] = deque()
        self._thread: threading.Thread | None = None
        self._git: git.Git | None = None
        self._is_hurried = False
        self._is_awaited = threading.Event()
        self._texts: dict[_Wish, tuple[dict[str, str], dict[str, str]]] = {}
        self._found: dict[_Wish, _Found] = {}
        # The patch that was put last into each lake: its text, its URI and when.
        self._put: dict[str, tuple[str, str, float]] = {}

    def take(self, subject: _Subject) -> None:
        """Tell a run what is known, or have it wait for the thread.

        Args:
            subject: a run that has just begun.
        """
        with self._lock:
            answer = None if self._thread is not None else self._known(subject)
            if answer is None:
                self._waiting.append(subject)
                if self._thread is None:
                    self._start()
        if answer is not None:
            subject.tell(answer)

    def settle(self, limit_s: float, *, wait_s: float = WAIT_S) -> None:
        """Return when no run waits any more.

        Args:
            limit_s: seconds after which this returns all the same.
            wait_s: seconds after which git is ended, and what is known is what is kept.
        """
        until_s = clock.monotonic_s() + limit_s
        thread = self._thread
        if thread is None or thread is threading.current_thread():
            return
        self._is_awaited.set()
        thread.join(min(wait_s, limit_s))
        if thread.is_alive():
            with self._lock:
                self._is_hurried = True
                if self._git is not None:
                    self._git.stop()
            thread.join(max(0.0, until_s - clock.monotonic_s()))

    # Inside.

    def _start(self) -> None:
        self._is_hurried = False
        self._is_awaited.clear()
        thread = threading.Thread(target=self._serve, name="runlake-provenance", daemon=True)
        lifecycle.watch_late(self._end)
        try:
            thread.start()
        except RuntimeError:  # no thread can start here, so nothing is found out
            self._waiting.clear()
        else:
            self._thread = thread

    def _end(self, is_hurried: bool) -> None:  # noqa: FBT001 - as lifecycle calls it
        wait_s = _HURRIED_S if is_hurried else WAIT_S
        self.settle(2 * wait_s, wait_s=wait_s)

    def _known(self, subject: _Subject) -> _Answer | None:
        """Return what a run can be told at once; None if anything takes its time."""
        wish = subject.wish
        if wish not in self._texts:
            return None
        texts, tags = self._texts[wish]
        if "git" not in wish.parts:
            return _Answer(texts, tags)
        found = self._found.get(wish)
        if found is None or not found.is_fresh:
            return None
        answer = self._answer(subject, found)
        return answer if answer.patch is None else None

    def _answer(self, subject: _Subject, found: _Found) -> _Answer:
        """Join what git told with the rest."""
        texts, tags = self._texts[subject.wish]
        where, patch = None, None
        if found.patch is not None:
            where = self._place_of(found.patch, subject.lake)
            if where is None:
                where, patch = subject.path(found.patch), found.patch
        return _Answer({**texts, "git": found.text(where)}, {**tags, **found.tags}, patch, found)

    def _place_of(self, patch: str, lake: str) -> str | None:
        """Return the URI of a patch that another run of the lake has got just now."""
        text, uri, put_s = self._put.get(lake, ("", "", 0.0))
        is_known = text == patch and clock.monotonic_s() - put_s < PATCH_EACH_S
        return uri if is_known else None

    def _serve(self) -> None:
        """Tell all who wait, until nobody does."""
        self._is_awaited.wait(_PAUSE_S)
        while True:
            with self._lock:
                if not self._waiting:
                    self._thread = None
                    return
                subject = self._waiting.popleft()
            with suppress(Exception):  # a run without provenance is better than none
                self._find_out(subject)

    def _find_out(self, subject: _Subject) -> None:
        """Tell one run everything, whatever that takes."""
        wish = subject.wish
        if wish not in self._texts:
            _trim(self._texts)
            self._texts[wish] = _describe(wish)
        answer = self._known(subject)
        if answer is not None:
            subject.tell(answer)
            return
        # Git and the store may take their time, and the process may be killed meanwhile.
        texts, tags = self._texts[wish]
        subject.tell(_Answer(texts, tags))
        found = self._found.get(wish)
        if found is None or not found.is_fresh:
            _trim(self._found)
            found = self._found[wish] = self._look(wish)
        answer = self._answer(subject, found)
        subject.tell(_Answer({"git": answer.texts["git"]}, found.tags))
        if answer.patch is not None:
            self._keep(subject, found, answer.patch)

    def _keep(self, subject: _Subject, found: _Found, patch: str) -> None:
        """Put the patch into a run's artifacts; where that fails, the run says so."""
        path = subject.path(patch)
        try:
            subject.put(path, patch)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is noted
            why = f"{type(error).__name__}: {error}"
            subject.tell(_Answer({"git": found.text(None, why=why)}, {}))
        else:
            uri = f"runs:/{subject.run.run_id}/{path}"
            self._put[subject.lake] = patch, uri, clock.monotonic_s()

    def _look(self, wish: _Wish) -> _Found:
        """Ask git."""
        folder = git.folder_of(wish.start.script, wish.start.folder)
        if folder is None:
            said: dict[str, Any] = {"unknown": {"repository": "there is no working directory"}}
            return _Found(clock.monotonic_s(), said)
        looking = git.Git(folder)
        with self._lock:
            self._git = looking
            if self._is_hurried:
                looking.stop()
        at_s = clock.monotonic_s()
        code = looking.look(only_commit="status" not in wish.parts, patch="diff" in wish.parts)
        with self._lock:
            self._git = None
        redact = redactor(wish.redact)
        said = _without_secrets(code.said, redact)
        patch = None if code.patch is None else redact.patch(code.patch)
        if patch is not None:
            said["diff_bytes"] = len(_bytes(patch))
        tags = {tag: said[name] for tag, name in _TAGS.items() if said.get(name)}
        tags = tags if "tags" in wish.parts else {}
        return _Found(at_s, said, patch, tags, code.folder, git.marks(code.folder))


def begin(run: Run, settings: Settings) -> None:
    """Have a run that has just begun say where it comes from; returns at once.

    Args:
        run: begun by this process.
        settings: of its lake: `provenance` says what, `redact` what not.
    """
    parts = _parts(settings.provenance)
    if not parts:
        return
    plan = run._plan  # noqa: SLF001 - as above
    # Of many who write one run, the first says what is the same for all.
    if not (plan.is_joined and _number(_RANKS)):
        parts |= {"tags", "status"}
    else:
        parts -= {"diff"}
    if plan.is_joined and _number(_LOCAL_RANKS):
        parts -= {"packages"}
    wish = _Wish(parts, settings.redact, Start.now(), os.getpid())
    _here.take(_Subject(run, wish))


def settle(limit_s: float) -> None:
    """Return when every run of this process has been told where it comes from.

    Args:
        limit_s: seconds after which this returns all the same; git gets at most 5 of them.
    """
    _here.settle(limit_s)


@lru_cache(maxsize=16)
def _parts(setting: str) -> frozenset[str]:
    parts = provenance_parts(setting)
    return parts | {"git"} if "diff" in parts else parts


def _number(variables: Sequence[str]) -> int:
    """Return the number that the first of some variables holds, 0 where none does."""
    for variable in variables:
        text = os.environ.get(variable, "")
        if text.isdigit():
            return int(text)
    return 0


def _describe(wish: _Wish) -> tuple[dict[str, str], dict[str, str]]:
    """Return the texts of all parts but git, and the tags that go with them."""
    redact = redactor(wish.redact)
    ways: dict[str, Callable[[], Mapping[str, Any]]] = {
        "process": lambda: process.describe_process(wish.start, redact, user=user()),
        "host": process.describe_host,
        "environment": lambda: redact.variables(wish.start.environment),
        "packages": lambda: packages.installed(sys.path),
    }
    texts = {}
    for part, way in ways.items():
        if part in wish.parts:
            try:
                texts[part] = values.printable(to_json(way()))
            except Exception as error:  # noqa: BLE001 - whatever it is, it is noted
                texts[part] = to_json({"unknown": f"{type(error).__name__}: {error}"})
    if not {"process", "tags"} <= wish.parts:
        return texts, {}
    return texts, {_TYPE_TAG: "NOTEBOOK" if wish.start.kind == "notebook" else "LOCAL"}


def _without_secrets(said: Mapping[str, Any], redact: Redactor) -> dict[str, Any]:
    """Return what git told with the secrets in its texts left out."""
    return {
        name: values.printable(redact.text(value)) if isinstance(value, str) else value
        for name, value in said.items()
    }


def _bytes(patch: str) -> bytes:
    """Return a patch as git printed it: of texts in another encoding than UTF-8 as well."""
    return patch.encode(errors="surrogateescape")


def _trim(answers: dict[_Wish, Any]) -> None:
    """Forget the oldest answers."""
    while len(answers) >= _ANSWERS:
        del answers[next(iter(answers))]


_here = Collector()


def _after_fork_in_child() -> None:
    global _here  # noqa: PLW0603 - one for each process, renewed after a fork
    _here = Collector()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
