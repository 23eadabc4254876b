"""What this process is, where it runs, and what it was told by the environment."""

from __future__ import annotations

import os
import platform
import re
import shlex
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runlake.provenance.start import Start
    from runlake.redaction import Redactor

_TEXT_CHARS: Final = 4000
_LIST_CHARS: Final = 40_000
_CUT: Final = "… (cut)"
_CONTAINER_ID: Final = re.compile(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
CGROUP: Final = "/proc/self/cgroup"
MOUNTS: Final = "/proc/self/mountinfo"
_NAMESPACE: Final = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"


def describe_process(start: Start, redactor: Redactor, *, user: str) -> dict[str, Any]:
    """Return what runs, and how it was started.

    Args:
        start: as the run began.
        redactor: leaves secrets out.
        user: who runs it.

    Returns:
        Values by name, for JSON.
    """
    command = [sys.executable or "python", *(getattr(sys, "orig_argv", None) or [])[1:]]
    arguments = redactor.arguments(start.arguments[1:])
    return {
        "kind": start.kind,
        start.kind: None if start.name is None else redactor.text(start.name),
        "script": start.script,
        "arguments": _bounded(arguments),
        "command": _cut(shlex.join(redactor.arguments(command)), _LIST_CHARS),
        "working_directory": start.folder,
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "executable": sys.executable or None,
        "prefix": sys.prefix,
        "pid": os.getpid(),
        "user": user,
    }


def describe_host() -> dict[str, Any]:
    """Return the machine, the container and the pod that this process runs in.

    Returns:
        Values by name, for JSON.
    """
    uname = platform.uname()
    said: dict[str, Any] = {
        "name": socket.gethostname(),
        "platform": platform.platform(),
        "system": uname.system,
        "release": uname.release,
        "machine": uname.machine,
        "cpus": os.cpu_count(),
        "cpus_usable": _cpus_usable(),
        "memory_bytes": _memory_bytes(),
    }
    return said | _container() | _pod(os.environ)


def _cpus_usable() -> int | None:
    """Return how many cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except (AttributeError, OSError):
        return os.cpu_count()


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def _container() -> dict[str, str | None]:
    """Return what kind of container this is, and its id where the kernel tells."""
    kind = None
    if os.path.exists("/.dockerenv"):  # noqa: PTH110 - a plain question
        kind = "docker"
    elif os.path.exists("/run/.containerenv"):  # noqa: PTH110 - as above
        kind = "podman"
    elif "APPTAINER_CONTAINER" in os.environ or "SINGULARITY_CONTAINER" in os.environ:
        kind = "apptainer"
    found = None
    for file in (CGROUP, MOUNTS):
        with suppress(OSError, ValueError):
            lines = Path(file).read_text("utf-8").splitlines()
            # A mount of something else may have such a number as well.
            told = [line for line in lines if file == CGROUP or "containers/" in line]
            found = found or _CONTAINER_ID.search("\n".join(told))
    image = os.environ.get("APPTAINER_CONTAINER") or os.environ.get("SINGULARITY_CONTAINER")
    said = {"container": kind, "container_id": found[0] if found else None, "image": image}
    return {name: value for name, value in said.items() if value is not None}


def _pod(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the pod and namespace, inside Kubernetes."""
    if "KUBERNETES_SERVICE_HOST" not in environ:
        return {}
    said = {"pod": environ.get("POD_NAME") or environ.get("HOSTNAME")}
    said["namespace"] = environ.get("POD_NAMESPACE")
    if not said["namespace"]:
        with suppress(OSError, ValueError):
            said["namespace"] = Path(_NAMESPACE).read_text("utf-8").strip()
    return {f"kubernetes_{name}": value for name, value in said.items() if value}


def _bounded(arguments: list[str]) -> list[str]:
    """Return arguments, the long ones cut, and the last left out where they are very many."""
    kept: list[str] = []
    size = 0
    for argument in arguments:
        short = _cut(argument, _TEXT_CHARS)
        size += len(short) + 4
        if size > _LIST_CHARS:
            return [*kept, f"… ({len(arguments) - len(kept)} more)"]
        kept.append(short)
    return kept


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[:limit] + _CUT
