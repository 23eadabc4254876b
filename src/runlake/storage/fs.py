"""Open the storage that a URL names; the only door to it.

Opening makes no request and loads no library of a far store; a library that is not installed
is nevertheless reported here, with the pip line.
"""

from __future__ import annotations

import os
import re
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

from runlake._lazy import lazy
from runlake.errors import InvalidInputError, MissingDependencyError
from runlake.storage.filesystem import TEMPORARY, Entry, Filesystem, Range
from runlake.storage.localfs import LocalFilesystem
from runlake.storage.memoryfs import MemoryFilesystem

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import fsspec

    from runlake.settings import Settings
    from runlake.storage import objectstores, plainfs
else:
    fsspec = lazy("fsspec")
    # They bring asyncio, which a local lake does without.
    objectstores = lazy("runlake.storage.objectstores")
    plainfs = lazy("runlake.storage.plainfs")

__all__ = ["TEMPORARY", "Entry", "Filesystem", "Range", "open_filesystem"]

# Scheme: the package that speaks it, and the extra that brings the package.
_STORES: Final = {
    "s3": ("s3fs", "s3"),
    "s3a": ("s3fs", "s3"),
    "gs": ("gcsfs", "gcs"),
    "gcs": ("gcsfs", "gcs"),
    "az": ("adlfs", "azure"),
    "abfs": ("adlfs", "azure"),
    "abfss": ("adlfs", "azure"),
}
_ALIASES: Final = {"s3a": "s3", "gcs": "gs"}
_DATABASES: Final = {"mssql", "mysql", "postgresql", "sqlite"}
_CHAINS: Final = {"blockcache", "cached", "dir", "filecache", "reference", "simplecache"}
_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)


def open_filesystem(
    url: str | os.PathLike[str], *, storage_options: Mapping[str, object], settings: Settings
) -> Filesystem:
    """Open the storage of a lake; no request is made.

    Args:
        url: a path (relative, with `~`, or absolute), or a URL: `file://`, `memory://`,
            `s3://`, `gs://`, `az://`, `abfs://`, or any other scheme that fsspec knows.
        storage_options: what fsspec gets, for example keys and endpoints.
        settings: for the time that an operation may take and the requests at once.

    Returns:
        The filesystem, rooted at the URL.

    Raises:
        InvalidInputError: the scheme is unknown, or the address is a server's or a database's.
        MissingDependencyError: the scheme's library is not installed.
    """
    text = os.fspath(url)
    match = _SCHEME.fullmatch(text)
    if match is None and "://" in text:
        message = f"{text.partition('://')[0]}:// is no place for a lake: URLs cannot be chained."
        raise InvalidInputError(message)
    if match is None:
        return LocalFilesystem(_local_root(text))
    return _open_scheme(match[1].lower(), match[2], storage_options, settings)


def _open_scheme(
    scheme: str, rest: str, options: Mapping[str, object], settings: Settings
) -> Filesystem:
    if scheme in {"file", "local"}:
        return LocalFilesystem(_local_root(unquote(rest)))
    if scheme == "memory":
        return MemoryFilesystem(rest.strip("/"))
    message = _elsewhere(scheme, rest)
    if message is not None:
        raise InvalidInputError(message)
    if scheme in _STORES:
        return _open_store(scheme, rest, options, settings)
    return _open_plain(scheme, rest, options, settings)


def _elsewhere(scheme: str, rest: str) -> str | None:
    """Say of the address of another tracker what to write instead; None for a place of ours."""
    url = f"{scheme}://{_public(rest)}"
    if scheme == "runlake" or scheme.startswith("runlake+"):
        own = rest if scheme == "runlake" else f"{scheme.removeprefix('runlake+')}://{rest}"
        return f"{url} is how MLflow is told of a lake; here write {_public(own)!r}."
    kind = "server" if scheme in {"http", "https"} else "database"
    if kind == "database" and scheme.partition("+")[0] not in _DATABASES:
        return None
    return (
        f"{url} is a {kind}'s address, and runlake has no {kind}: a lake is a folder or a bucket. "
        "Write its path or URL instead, for example './lake' or 's3://bucket/lake'; "
        f"`runlake import mlflow {url}` brings along what is there."
    )


def _open_store(
    scheme: str, rest: str, options: Mapping[str, object], settings: Settings
) -> Filesystem:
    package, extra = _STORES[scheme]
    if find_spec(package) is None:
        message = (
            f"{package} is needed for {scheme}:// and not installed. "
            f"Install it: pip install 'runlake[{extra}]'"
        )
        raise MissingDependencyError(message)
    authority, _, path = rest.partition("/")
    bucket, prefix = authority.rpartition("@")[2], path.strip("/")
    if extra == "azure" and "@" in authority:
        # abfs://container@account.dfs.core.windows.net/path: no credentials, but an account.
        bucket, _, host = authority.partition("@")
        options = {"account_name": host.partition(".")[0], **options}
        authority = f"{bucket}@{host}"
    else:
        authority = bucket
    if not bucket:
        message = f"{scheme}://{rest} names no bucket; write {scheme}://bucket/folder."
        raise InvalidInputError(message)
    url = f"{_ALIASES.get(scheme, scheme)}://{authority}" + (f"/{prefix}" if prefix else "")
    openers: dict[str, Callable[..., Filesystem]] = {
        "s3": objectstores.S3Filesystem,
        "gcs": objectstores.GcsFilesystem,
        "azure": objectstores.AzureFilesystem,
    }
    place = objectstores.Place(bucket, prefix)
    return openers[extra](url, place=place, options=options, settings=settings)


def _open_plain(
    scheme: str, rest: str, options: Mapping[str, object], settings: Settings
) -> Filesystem:
    known = {*fsspec.available_protocols(), *fsspec.registry}
    if scheme not in known:
        near = get_close_matches(scheme, [*_STORES, "file", "memory", *known], n=1, cutoff=0.5)
        hint = f" Did you mean {near[0]}://?" if near else ""
        message = (
            f"{scheme}://{_public(rest)} is no place for a lake: the scheme is not known.{hint} "
            "Use a path, file://, memory://, s3://, gs://, az://, abfs://, or a scheme that "
            f"fsspec knows: {', '.join(sorted(known - _CHAINS))}."
        )
        raise InvalidInputError(message)
    try:
        fsspec.get_filesystem_class(scheme)
    except ImportError as error:
        raise MissingDependencyError(f"{scheme}:// cannot be used here: {error}") from error
    rest = rest.rstrip("/")
    url = f"{scheme}://{_public(rest)}"
    address = f"{scheme}://{rest}"
    return plainfs.PlainFilesystem(url, address=address, options=options, settings=settings)


def _public(rest: str) -> str:
    """Return what follows the scheme without user and password."""
    authority, slash, path = rest.partition("/")
    return authority.rpartition("@")[2] + slash + path


def _local_root(path: str) -> Path:
    if not path:
        message = "the lake's path is empty; use '.' for the current folder."
        raise InvalidInputError(message)
    # `Path.resolve` would replace links, and `Path.absolute` keeps "..".
    return Path(os.path.abspath(Path(path).expanduser()))  # noqa: PTH100 - as above
