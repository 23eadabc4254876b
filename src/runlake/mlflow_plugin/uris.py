"""The addresses that MLflow knows a lake and its artifacts by.

`runlake:///path` is a lake on the local disk, `runlake+SCHEME://...` one at `SCHEME://...`.
Artifacts lie below `@artifacts`, a word that no lake's own address may hold: experiment, run,
path in the run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final
from urllib import parse

from runlake.errors import InvalidInputError

LOCAL: Final = "runlake"
SCHEMES: Final = (LOCAL, "runlake+s3", "runlake+gs", "runlake+az", "runlake+memory")
_ARTIFACTS: Final = "@artifacts"
# The files of models that a run logged lie below this folder of the run.
MODELS_FOLDER: Final = "_models"
# MLflow takes addresses apart to put a path behind them; without this `runlake:///lake` would
# lose two of its slashes on the way.
parse.uses_netloc.extend(each for each in SCHEMES if each not in parse.uses_netloc)


def lake_url(store_uri: str) -> str:
    """Return the address of the lake itself.

    Args:
        store_uri: as MLflow has it.

    Returns:
        A path, or a URL that fsspec knows.

    Raises:
        InvalidInputError: it is no address of a lake.
    """
    scheme, _, rest = store_uri.partition(":")
    if scheme not in SCHEMES:
        known = ", ".join(f"{each}:" for each in SCHEMES)
        raise InvalidInputError(f"{store_uri!r} is no lake for MLflow; it begins with {known}.")
    path = rest.removeprefix("//")
    if _ARTIFACTS in path.split("/"):
        raise InvalidInputError(f"{store_uri!r} is no lake: {_ARTIFACTS} stands in its address.")
    if scheme != LOCAL:
        return f"{scheme.removeprefix('runlake+')}://{path}"
    if not path:
        message = f"{store_uri!r} names no folder; write {LOCAL}:///path, or {LOCAL}:path."
        raise InvalidInputError(message)
    if rest.startswith("//") and not path.startswith("/"):
        message = (
            f"{store_uri!r} names a host, {path.split('/')[0]!r}; a folder has three slashes: "
            f"{LOCAL}:///{path}."
        )
        raise InvalidInputError(message)
    return str(Path(parse.unquote(path)).absolute())


def artifact_uri(store_uri: str, *parts: str) -> str:
    """Return the address of artifacts in a lake.

    Args:
        store_uri: of the lake, as MLflow has it.
        *parts: experiment, run, and folders below the run; none: all artifacts.

    Returns:
        Its address; of a local lake with an absolute path.
    """
    if store_uri.startswith(f"{LOCAL}:"):
        path = lake_url(store_uri)
        quoted = path.replace("%", "%25").replace("?", "%3F").replace("#", "%23")
        store_uri = f"{LOCAL}://{quoted}"
    return "/".join([store_uri.rstrip("/"), _ARTIFACTS, *parts])


def split_artifact_uri(uri: str) -> tuple[str, list[str]]:
    """Return the lake that artifacts lie in, and where in it.

    Args:
        uri: as `artifact_uri` made it, with or without further folders.

    Returns:
        The lake's address as MLflow has it; experiment, run and folders, as far as they go.

    Raises:
        InvalidInputError: it is no such address.
    """
    words = uri.rstrip("/").split("/")
    if _ARTIFACTS not in words:
        raise InvalidInputError(f"{uri!r} names no artifacts; it has no part {_ARTIFACTS!r}.")
    at = words.index(_ARTIFACTS)
    return "/".join(words[:at]), [word for word in words[at + 1 :] if word != "."]
