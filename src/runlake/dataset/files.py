"""What files and folders hold, in short, wherever they lie.

Local files are read: the digest of one file is the beginning of its SHA-256, that of several, or
of a folder, is the SHA-256 of a list with path, size and SHA-256 of each. More than 1 GiB is
sampled: of each file its size, and of its content evenly spread blocks. What lies elsewhere is not
fetched: the store's own word on each object (ETag, checksum, version or time of writing) stands in
place of its content.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from runlake._lazy import lazy
from runlake.dataset.content import DIGEST_CHARS, LIMIT_BYTES, Content
from runlake.errors import InvalidInputError
from runlake.redaction.texts import url_without_secrets

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import pyarrow.parquet as pq
    from fsspec import core
else:
    core = lazy("fsspec.core")
    pq = lazy("pyarrow.parquet")

_CHUNK: Final = 1 << 20
_BLOCK: Final = 1 << 16
# What stores say of an object's content, the surest first.
_WORDS: Final = (
    "ETag",
    "etag",
    "md5Hash",
    "content_md5",
    "checksum",
    "crc32c",
    "version_id",
    "generation",
    "LastModified",
    "last_modified",
    "updated",
    "mtime",
    "modified",
)
_WEB: Final = ("http", "https")


def of_paths(
    paths: Sequence[str],
    *,
    storage_options: Mapping[str, Any] | None = None,
    digest: str | None = None,
) -> Content:
    """Describe files and folders.

    Args:
        paths: local paths, or URLs of any scheme that fsspec knows.
        storage_options: for fsspec.
        digest: in place of the computed one; then nothing is looked at.

    Returns:
        Their digest, and how many files and bytes they are.

    Raises:
        InvalidInputError: one of them is not there, or cannot be read.
    """
    if not paths:
        message = "a data set of files needs at least one path."
        raise InvalidInputError(message)
    if digest is not None:
        return Content(digest, None)
    is_far = not all(map(is_local, paths))
    try:
        if is_far:
            return _far(paths, storage_options or {})
        return _local([Path(path.removeprefix("file://")) for path in paths])
    except Exception as error:
        # Each store's client has errors of its own, which share no class.
        if is_far or isinstance(error, (OSError, ValueError, ImportError)):
            raise _refusal(paths[0], error, is_far=is_far) from error
        raise


def is_local(path: str) -> bool:
    """Tell whether a path is on this machine's disk."""
    return "://" not in path or path.startswith("file://")


def scheme(path: str) -> str:
    """Return what kind of source a path or URL is: `local`, `s3`, `https`, ..."""
    return "local" if is_local(path) else path.partition("://")[0].rpartition("::")[2]


def _local(paths: list[Path]) -> Content:
    files = sorted(found for path in paths for found in _below(path, alone=len(paths) == 1))
    total = sum(size for _, _, size in files)
    budget = None if total <= LIMIT_BYTES else max(1, LIMIT_BYTES // _BLOCK // len(files))
    profile: dict[str, Any] = {"files": len(files), "bytes": total}
    if budget is not None:
        profile["is_sampled"] = True
    lines = hashlib.sha256()
    only = ""
    for name, file, size in files:
        only = _digest(file, size, budget)
        lines.update(json.dumps([name, size, only]).encode() + b"\n")
    is_one = len(paths) == 1 and paths[0].is_file()
    schema = _parquet(paths[0], profile) if is_one else None
    return Content((only if is_one else lines.hexdigest())[:DIGEST_CHARS], schema, profile)


def _below(path: Path, *, alone: bool) -> Iterator[tuple[str, Path, int]]:
    """Yield name, place and size of each file; names are those below a folder."""
    if not path.is_dir():
        yield path.name, path, path.stat().st_size
        return
    prefix = "" if alone else f"{path.name}/"
    for here, _, names in os.walk(path):
        for file in (Path(here) / name for name in names):
            if file.is_file():
                yield prefix + file.relative_to(path).as_posix(), file, file.stat().st_size


def _digest(file: Path, size: int, budget: int | None) -> str:
    """Return the SHA-256 of a file, or of its size and so many blocks of it."""
    digest = hashlib.sha256()
    with file.open("rb", buffering=0) as opened:
        if budget is None or size <= budget * _BLOCK:
            buffer = bytearray(_CHUNK)
            view = memoryview(buffer)
            while count := opened.readinto(buffer):
                digest.update(view[:count])
        else:
            digest.update(b"%d\n" % size)
            for number in range(budget):
                opened.seek((size - _BLOCK) * number // max(1, budget - 1))
                digest.update(opened.read(_BLOCK))
    return digest.hexdigest()


def _parquet(file: Path, profile: dict[str, Any]) -> list[dict[str, Any]] | None:
    """Return the columns of a Parquet file, and note its rows; None for all others."""
    if file.suffix.lower() not in {".parquet", ".pq"}:
        return None
    try:
        with pq.ParquetFile(file) as opened:
            profile["rows"] = opened.metadata.num_rows
            profile["columns"] = len(opened.schema_arrow)
            return [{"name": each.name, "type": str(each.type)} for each in opened.schema_arrow]
    except (ValueError, OSError):  # it only has the name of one
        return None


def _refusal(path: str, error: Exception, *, is_far: bool) -> InvalidInputError:
    """Return what to raise where files cannot be read, without the secrets of a URL."""
    what = f"the data set {path!r} cannot be read: {type(error).__name__}: {error}"
    way = (
        "Give what the store asks for, as credentials, in the environment or with "
        "runlake.Dataset.of(url, storage_options=...); or its digest"
        if is_far
        else "Give its digest"
    )
    return InvalidInputError(
        f"{url_without_secrets(what).removesuffix('.')}. {way}, if you know it: "
        "runlake.Dataset(name=..., digest=..., source=...)."
    )


def _far(paths: Sequence[str], storage_options: Mapping[str, Any]) -> Content:
    lines = []
    total = 0
    for path in paths:
        filesystem, root = core.url_to_fs(path, **storage_options)
        if scheme(path) in _WEB:
            found = {root: filesystem.info(root)}
        else:
            found = filesystem.find(root, detail=True)
        if not found:
            message = f"there is nothing at {path!r}"
            raise FileNotFoundError(message)
        for name, info in sorted(found.items()):
            below = str(name).removeprefix(str(root)).lstrip("/")
            size = info.get("size")
            word = next((str(info[each]) for each in _WORDS if info.get(each)), None)
            if word is None:
                word = _digest_far(filesystem, name)
            lines.append(json.dumps([below, size, word]))
            total += size or 0
    digest = hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()
    return Content(digest[:DIGEST_CHARS], None, {"files": len(lines), "bytes": total})


def _digest_far(filesystem: Any, name: str) -> str:  # noqa: ANN401 - fsspec has no types
    """Return the SHA-256 of what lies on a store that says nothing of it."""
    digest = hashlib.sha256()
    with filesystem.open(name, "rb") as opened:
        while data := opened.read(_CHUNK):
            digest.update(data)
            if opened.tell() > LIMIT_BYTES:
                break
    return digest.hexdigest()
