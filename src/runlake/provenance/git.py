"""The state of the code, as git tells it: asked in bounded time, and never asked twice at once.

Git only reads here: it takes no lock, asks nobody for a password, runs no pager or monitor, and
is ended when its time is over. Where there is no git or no repository, that is what is said.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

DIFF_LIMIT_BYTES: Final = 1 << 20
LIMIT_S: Final = 30.0
_LISTED: Final = 100
_ANSWER_BYTES: Final = 8 << 20
_REMOTE_CHARS: Final = 2000
_OPTIONS: Final = (
    "--no-pager",
    "-c",
    "core.quotePath=false",
    "-c",
    "core.fsmonitor=false",
    "-c",
    "color.ui=false",
)
_DIFF: Final = (
    "diff",
    "HEAD",
    "--no-ext-diff",
    "--no-textconv",
    "--no-color",
    "--unified=3",
    "--submodule=short",
    "--ignore-submodules=dirty",
    "--src-prefix=a/",
    "--dst-prefix=b/",
)
_STATUS: Final = (
    "status",
    "--porcelain=v2",
    "--branch",
    "-z",
    "--untracked-files=normal",
    "--ignore-submodules=untracked",
    "--no-renames",
)


@dataclass(frozen=True, slots=True)
class Code:
    """What git told.

    Attributes:
        said: values by name, for JSON, secrets included.
        patch: what differs from the commit, secrets included; None where nothing does, or
            nobody asked; ends at a whole line. Bytes that are no UTF-8 are surrogates, as
            `surrogateescape` makes them.
        folder: where git keeps what it knows; None outside a repository.
    """

    said: dict[str, Any]
    patch: str | None = None
    folder: str | None = None


class Git:
    """One look at a repository; another thread may end it."""

    def __init__(self, folder: str, *, limit_s: float = LIMIT_S) -> None:
        """Look from a folder.

        Args:
            folder: the repository's, or any below it.
            limit_s: seconds for all questions together.
        """
        self._folder = folder
        self._limit_s = limit_s
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._over = threading.Event()

    def stop(self) -> None:
        """End what runs, and ask no more; what is known already counts."""
        with self._lock:
            self._over.set()
            if self._process is not None:
                _kill(self._process)

    def look(self, *, only_commit: bool, patch: bool) -> Code:
        """Ask for commit, branch, remote, and what differs from the commit.

        Args:
            only_commit: leave out what takes a look at each file.
            patch: ask also how the files differ.

        Returns:
            What git told; `unknown` names what it did not.
        """
        timer = threading.Timer(self._limit_s, self.stop)
        timer.daemon = True
        timer.start()
        try:
            return self._look(only_commit=only_commit, patch=patch)
        finally:
            timer.cancel()

    def _look(self, *, only_commit: bool, patch: bool) -> Code:
        place = self._ask("rev-parse", "--show-toplevel", "--absolute-git-dir")
        if not place.is_whole:
            return Code({"unknown": {"repository": self._refusal(place.why)}})
        root, _, folder = place.text.removesuffix("\n").rpartition("\n")
        said: dict[str, Any] = {"root": root}
        unknown: dict[str, str] = {}
        commit = self._ask("rev-parse", "--verify", "HEAD^{commit}")
        if commit.is_whole:
            said["commit"] = commit.text.strip()
        else:
            is_first = not self._ask("rev-parse", "--verify", "--quiet", "HEAD").text
            unknown["commit"] = "there is no commit yet" if is_first else commit.why
        branch = self._ask("symbolic-ref", "--short", "--quiet", "HEAD")
        said["branch"] = branch.text.strip() or None if branch.is_whole else None
        said["remote"] = self._remote()
        code = None
        if not only_commit:
            status = self._ask(*_STATUS)
            if status.is_whole or status.is_cut:
                said |= _changes(status.text)
            else:
                unknown["dirty"] = status.why
            if patch and said.get("changed_count") and commit.is_whole:
                code = self._patch(said, unknown)
        if unknown:
            said["unknown"] = unknown
        return Code(said, code, folder)

    def _refusal(self, why: str) -> str:
        """Return why there is no repository; what is there may be somebody else's."""
        # Git takes its word for it, and touches nothing of the repository.
        owned = self._ask("-c", "safe.directory=*", "rev-parse", "--show-toplevel")
        if not owned.is_whole:
            return why
        root = owned.text.strip()
        return f"{root} belongs to another user: git config --global --add safe.directory {root}"

    def _remote(self) -> str | None:
        """Return the address of `origin`, else of the first remote."""
        told = self._ask("config", "--get-regexp", r"^remote\..*\.url$")
        found = [line.partition(" ") for line in told.text.splitlines()] if told.is_whole else []
        addresses = {key: address for key, _, address in found}
        address = addresses.get("remote.origin.url") or next(iter(addresses.values()), None)
        return None if address is None else without_user(address)[:_REMOTE_CHARS]

    def _patch(self, said: dict[str, Any], unknown: dict[str, str]) -> str | None:
        told = self._ask(
            *_DIFF, limit_bytes=DIFF_LIMIT_BYTES, below=said["root"], errors="surrogateescape"
        )
        if not (told.is_whole or told.is_cut):
            unknown["diff"] = told.why
            return None
        text = told.text
        if told.is_cut:
            text = text[: text.rfind("\n") + 1]
            said["diff_cut"] = True
        return text or None

    def _ask(
        self,
        *question: str,
        limit_bytes: int = _ANSWER_BYTES,
        below: str | None = None,
        errors: str = "replace",
    ) -> _Answer:
        """Run git, and read at most so many bytes of its answer; `errors` is for decoding it."""
        command = ["git", *_OPTIONS, *question]
        try:
            with self._lock:
                if self._over.is_set():
                    return _Answer(why="time was over")
                process = self._process = subprocess.Popen(  # noqa: S603 - words of our own
                    command,
                    cwd=below or self._folder,
                    env=_environment(),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,
                )
        except (OSError, ValueError) as error:
            missing = isinstance(error, FileNotFoundError) and os.path.isdir(self._folder)  # noqa: PTH112 - a text
            return _Answer(why="git is not installed" if missing else f"{error}")
        with process:
            data = b"" if process.stdout is None else process.stdout.read(limit_bytes + 1)
            is_cut = len(data) > limit_bytes
            if is_cut:
                _kill(process)
        with self._lock:
            self._process, was_ended = None, self._over.is_set()
        text = data[:limit_bytes].decode(errors=errors)
        if is_cut:
            return _Answer(text, is_cut=True)
        if process.returncode == 0:
            return _Answer(text, is_whole=True)
        why = "time was over" if was_ended else f"git {question[0]} ended {process.returncode}"
        return _Answer(text, why=why)


@dataclass(frozen=True, slots=True)
class _Answer:
    """What git printed, and whether that is all."""

    text: str = ""
    is_whole: bool = False
    is_cut: bool = False
    why: str = field(default="")


def folder_of(script: str | None, working: str | None) -> str | None:
    """Return the folder whose repository holds the code.

    Args:
        script: the main program.
        working: the working directory.

    Returns:
        The program's folder where that lies in a repository and is no installed package, else
        the working directory; None where there is neither. Of a program that is reached by a
        link the folder counts where it really lies, as it does for imports, and then the link's.
    """
    for file in () if script is None else (os.path.realpath(script), script):
        folder = os.path.dirname(file)  # noqa: PTH120 - texts all over
        is_installed = folder.startswith(sys.prefix + os.sep) or "site-packages" in folder
        if not is_installed and _is_in_repository(folder):
            return folder
    return working


def marks(folder: str | None) -> tuple[int, ...]:
    """Return what changes with a commit, a checkout and whatever else git does.

    Args:
        folder: where git keeps what it knows.
    """
    found = []
    for name in ("HEAD", "index", "logs/HEAD") if folder is not None else ():
        try:
            found.append(os.stat(f"{folder}/{name}").st_mtime_ns)  # noqa: PTH116 - a text
        except OSError:
            found.append(0)
    return tuple(found)


def without_user(address: str) -> str:
    """Return a remote's address without user and password.

    Args:
        address: as git has it. In `git@host:path` and `ssh://git@host` the user is part of the
            address, and stays.
    """
    scheme, divider, rest = address.partition("://")
    if not divider:
        return address
    host, slash, path = rest.partition("/")
    # A password may hold a slash that somebody forgot to escape.
    if "@" in path and "@" not in host and not host.rpartition(":")[2].isdigit() and ":" in host:
        path = path.rpartition("@")[2]
        host, slash, path = path.partition("/")
        return f"{scheme}://{host}{slash}{path}"
    user, at, name = host.rpartition("@")
    if at and scheme.endswith("ssh") and ":" not in user:
        return address
    return f"{scheme}://{name}{slash}{path.partition('?')[0]}"


def _is_in_repository(folder: str) -> bool:
    while True:
        if os.path.exists(os.path.join(folder, ".git")):  # noqa: PTH110, PTH118 - texts all over
            return True
        above = os.path.dirname(folder)  # noqa: PTH120 - as above
        if above == folder:
            return False
        folder = above


def _changes(status: str) -> dict[str, Any]:
    """Return what `git status` tells of files."""
    changed: list[str] = []
    untracked: list[str] = []
    for entry in status.split("\0"):
        kind, _, rest = entry.partition(" ")
        if kind == "?":
            untracked.append(rest)
        elif kind == "1":
            changed.append(rest.split(" ", 7)[-1])
        elif kind == "u":
            changed.append(rest.split(" ", 9)[-1])
    return {
        "dirty": bool(changed),
        "changed": changed[:_LISTED],
        "changed_count": len(changed),
        "untracked": untracked[:_LISTED],
        "untracked_count": len(untracked),
    }


def _environment() -> dict[str, str]:
    return {
        **os.environ,
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_ASKPASS": "",
        "SSH_ASKPASS": "",
        "LC_ALL": "C",
    }


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End git and whatever it has started."""
    with suppress(OSError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
