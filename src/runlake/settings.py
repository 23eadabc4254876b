"""Every knob, with unit, default and the environment variable that sets it.

An argument beats the environment, which beats the default. `runlake info` shows what won.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from runlake.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

DEFAULT_URL: Final = "./lake"
_CHOICES: Final = {"mode": ("online", "disabled"), "compact": ("auto", "off")}
PROVENANCE_PARTS: Final = ("process", "host", "environment", "packages", "git", "diff")
_TRUE: Final = frozenset({"1", "true", "yes", "on"})
_FALSE: Final = frozenset({"0", "false", "no", "off", ""})


def _env(name: str, default: object) -> Any:  # noqa: ANN401 - a dataclass field of any type
    return field(default=default, metadata={"env": name})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What one lake object was told.

    Attributes:
        url: the lake: any fsspec URL or path.
        storage_options: what fsspec gets, as a mapping; JSON in the environment.
        mode: `online`, or `disabled`, which turns every call into a no-op.
        strict: calls that log rows raise where they would warn.
        experiment: name of the experiment that runs go to where none was set.
        run_id: the run that `start_run()` resumes where none is named.
        journal: folder of the local journals, and of what is known of uploads under way; None:
            the user's state folder, see `writing.places` and `state_root`.
        journal_limit_bytes: journal bytes that an outage may fill for one writer; rows past it
            are refused, counted and said.
        cache: folder of the local cache of far lakes; None: the user's cache folder.
        cache_limit_bytes: size at which the cache drops what was not used for longest.
        close_timeout_s: seconds that the end of a process waits for the store.
        name_timeout_s: seconds that naming an experiment waits for the store before it goes on
            with the derived id.
        heartbeat_s: while a run is open, its writer puts an object at least this often, seconds.
        stale_s: seconds without an object after which an open run is shown as stale.
        refresh_s: age in seconds at which a snapshot is too old for a new query; None: 1 for
            a local lake, 10 for a far one.
        query_memory_bytes: rows that the queries of one snapshot hold in memory, before they go
            to the disk or are refused; None: half of what the machine, or its cgroup, has.
        query_threads: threads that work on queries; None: one for each core.
        request_timeout_s: seconds after which a storage operation, with its retries, gives up.
        parallel_requests: greatest number of requests under way at once.
        compact: `auto`, or `off`: no compaction starts by itself in this process.
        provenance: `on`, `off`, or which of `process`, `host`, `environment`, `packages`, `git`,
            `diff` is kept of where a run comes from, with commas between; `-diff` is all but it.
        redact: a regular expression for names of secrets, in place of the default, or beside it
            where it begins with `+`; `off` keeps all. Of params with such keys, and in
            provenance, `<redacted>` is kept.
        system_metrics: sample CPU, memory, disk, network and GPUs beside each run.
        system_metrics_interval_s: seconds between two samples.
        system_metrics_node: put into the keys, where several processes without ranks write
            one run.
        console: keep what a process prints while it has a run open.
    """

    url: str = _env("RUNLAKE_URL", DEFAULT_URL)
    storage_options: Mapping[str, Any] = field(
        default_factory=dict, metadata={"env": "RUNLAKE_STORAGE_OPTIONS"}, repr=False
    )
    mode: str = _env("RUNLAKE_MODE", "online")
    strict: bool = _env("RUNLAKE_STRICT", default=False)
    experiment: str | None = _env("RUNLAKE_EXPERIMENT", None)
    run_id: str | None = _env("RUNLAKE_RUN_ID", None)
    journal: str | None = _env("RUNLAKE_JOURNAL", None)
    journal_limit_bytes: int = _env("RUNLAKE_JOURNAL_LIMIT_BYTES", 4 << 30)
    cache: str | None = _env("RUNLAKE_CACHE", None)
    cache_limit_bytes: int = _env("RUNLAKE_CACHE_LIMIT_BYTES", 8 << 30)
    close_timeout_s: float = _env("RUNLAKE_CLOSE_TIMEOUT_S", 30.0)
    name_timeout_s: float = _env("RUNLAKE_NAME_TIMEOUT_S", 5.0)
    heartbeat_s: float = _env("RUNLAKE_HEARTBEAT_S", 300.0)
    stale_s: float = _env("RUNLAKE_STALE_S", 900.0)
    refresh_s: float | None = _env("RUNLAKE_REFRESH_S", None)
    query_memory_bytes: int | None = _env("RUNLAKE_QUERY_MEMORY_BYTES", None)
    query_threads: int | None = _env("RUNLAKE_QUERY_THREADS", None)
    request_timeout_s: float = _env("RUNLAKE_REQUEST_TIMEOUT_S", 30.0)
    parallel_requests: int = _env("RUNLAKE_PARALLEL_REQUESTS", 64)
    compact: str = _env("RUNLAKE_COMPACT", "auto")
    provenance: str = _env("RUNLAKE_PROVENANCE", "on")
    redact: str | None = _env("RUNLAKE_REDACT", None)
    system_metrics: bool = _env("RUNLAKE_SYSTEM_METRICS", default=False)
    system_metrics_interval_s: float = _env("RUNLAKE_SYSTEM_METRICS_INTERVAL_S", 10.0)
    system_metrics_node: str | None = _env("RUNLAKE_SYSTEM_METRICS_NODE", None)
    console: bool = _env("RUNLAKE_CONSOLE", default=False)

    @property
    def is_disabled(self) -> bool:
        """Whether every call is a no-op."""
        return self.mode == "disabled"


def resolve(
    *, environ: Mapping[str, str] | None = None, **arguments: object
) -> tuple[Settings, dict[str, str]]:
    """Settle every knob: argument, then environment, then default.

    Args:
        environ: the environment; None means the process's own.
        **arguments: values by field name; None means not given.

    Returns:
        The settings, and for each field where its value came from: `argument`, the name of
        the environment variable, or `default`.

    Raises:
        InvalidInputError: a variable's text does not fit its field.
    """
    environ = os.environ if environ is None else environ
    values: dict[str, Any] = {}
    origin: dict[str, str] = {}
    for knob in fields(Settings):
        variable = knob.metadata["env"]
        given = arguments.get(knob.name)
        if given is not None:
            values[knob.name], origin[knob.name] = given, "argument"
        elif environ.get(variable):
            values[knob.name] = _parse(variable, str(knob.type), environ[variable])
            origin[knob.name] = variable
        else:
            origin[knob.name] = "default"
        _check(knob.name, values.get(knob.name))
        if origin[knob.name] != "default" and knob.name in _CHECKS:
            _CHECKS[knob.name](values[knob.name])
        choices = _CHOICES.get(knob.name)
        if choices and values.get(knob.name, choices[0]) not in choices:
            shown = " or ".join(map(repr, choices))
            message = f"{variable} is {values[knob.name]!r}; it may be {shown}."
            raise InvalidInputError(message)
    return Settings(**values), origin


def _check(name: str, value: object) -> None:
    """Refuse a number that nobody can mean."""
    if not isinstance(value, (int, float)) or value >= 0:
        return
    raise InvalidInputError(f"{name} is {value!r}; it may be 0 or more.")


def provenance_parts(text: str) -> frozenset[str]:
    """Return what the setting `provenance` asks for.

    Args:
        text: `on`, `off`, or parts with commas between; with `-` before it, a part is left
            out, of all where no other is named.

    Returns:
        Some of `PROVENANCE_PARTS`.

    Raises:
        InvalidInputError: there is no such part.
    """
    words = [word.strip().lower() for word in text.split(",") if word.strip()]
    if len(words) == 1 and words[0] in _TRUE:
        return frozenset(PROVENANCE_PARTS)
    if not words or (len(words) == 1 and words[0] in _FALSE):
        return frozenset()
    left = {word[1:] for word in words if word.startswith("-")}
    named = {word for word in words if not word.startswith("-")}
    unknown = sorted((left | named) - set(PROVENANCE_PARTS))
    if unknown:
        message = (
            f"RUNLAKE_PROVENANCE is {text!r}, and there is no part {unknown[0]!r}. Write on, off, "
            f"or some of {', '.join(PROVENANCE_PARTS)}; -diff leaves one out."
        )
        raise InvalidInputError(message)
    return frozenset((named or set(PROVENANCE_PARTS)) - left)


def _check_redact(text: str) -> None:
    try:
        re.compile(text.removeprefix("+"))
    except re.error as error:
        message = (
            f"RUNLAKE_REDACT is {text!r}, which is no regular expression: {error}. Write one, like "
            "'password|secret', or '+my_key' to add to the default, or 'off'."
        )
        raise InvalidInputError(message) from error


_CHECKS: Final[Mapping[str, Callable[[str], object]]] = {
    "provenance": provenance_parts,
    "redact": _check_redact,
}


def _parse(variable: str, kind: str, text: str) -> object:
    """Turn a variable's text into the type of its field."""
    try:
        if kind.startswith("bool"):
            return _flag(text)
        if kind.startswith("int"):
            return int(text)
        if kind.startswith("float"):
            return float(text)
        if kind.startswith("Mapping"):
            return _mapping(text)
    except ValueError as error:
        message = f"{variable} is {text!r}, which is no {kind}: {error}."
        raise InvalidInputError(message) from error
    return text


def _flag(text: str) -> bool:
    if text.lower() in _TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    message = "use 1 or 0"
    raise ValueError(message)


def _mapping(text: str) -> dict[str, Any]:
    value = json.loads(text)
    if not isinstance(value, dict):
        message = 'use a JSON object, like {"key": "…"}'
        raise ValueError(message)  # noqa: TRY004 - one error for all bad texts
    return value


def user_folder(variable: str, fallback: str) -> Path:
    """Return the user's own folder for runlake: `$variable/runlake`, else `~/fallback/runlake`."""
    base = os.environ.get(variable)
    if base:
        return Path(base) / "runlake"
    home = os.path.expanduser("~")  # noqa: PTH111 - Path.home raises where there is none
    if home in {"~", "/"}:
        return Path(tempfile.gettempdir()) / f"runlake-{os.getuid()}"
    return Path(home) / fallback / "runlake"


def state_root(settings: Settings) -> Path:
    """Return the folder of what this host keeps for its next process."""
    if settings.journal:
        return Path(settings.journal)
    return user_folder("XDG_STATE_HOME", ".local/state")


def cache_root(settings: Settings) -> Path:
    """Return the folder of the local cache of far lakes."""
    if settings.cache:
        return Path(settings.cache)
    return user_folder("XDG_CACHE_HOME", ".cache")
