"""S3, Google Cloud Storage and Azure: how each connects, lists and deletes through fsspec.

Their own retries are off where they can be, because they would spend the time of ours
without jitter. Requests are exactly those that a verb needs: no HEAD before a GET.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import mimetypes
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Final, final

from runlake._lazy import need
from runlake.errors import StorageError
from runlake.settings import state_root
from runlake.storage import retry
from runlake.storage.filesystem import Entry, Leftover, Leftovers
from runlake.storage.large import Large
from runlake.storage.objectfs import ObjectFilesystem, Page, Place
from runlake.storage.objectsession import GcsLarge

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from runlake.storage.source import Source

__all__ = ["AzureFilesystem", "GcsFilesystem", "Place", "S3Filesystem"]

_COPY_LOOK_S: Final = 0.2
_NOT_IMPLEMENTED: Final = 501
_LARGEST_COPY: Final = 5 * 2**30
_LARGEST_STREAM: Final = 100 * 2**20


@final
class S3Filesystem(ObjectFilesystem):
    """A lake in a bucket of S3 or of a store that speaks its language."""

    batch: ClassVar[int] = 1000

    def _connect(self, options: dict[str, Any]) -> Any:  # noqa: ANN401 - fsspec has no types
        config = {
            # The default of 10 made 1,000 reads at 50 ms take 11.5 s; 64 makes it 1.6 s.
            "max_pool_connections": self.parallel,
            "retries": {"total_max_attempts": 1},
            **options.get("config_kwargs", {}),
        }
        store = need("s3fs", extra="s3").S3FileSystem(**options | {"config_kwargs": config})
        store.retries = 1
        return store

    async def _page(self, prefix: str, token: str | None, limit: int) -> Page:
        asked = {"Bucket": self.bucket, "Prefix": prefix, "MaxKeys": limit}
        if token is not None:
            asked["ContinuationToken"] = token
        answer = await self.store._call_s3("list_objects_v2", **asked)
        entries = [
            Entry(item["Key"], item["Size"], _time_us(item["LastModified"]))
            for item in answer.get("Contents", ())
        ]
        headers = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {})
        return Page(entries, answer.get("NextContinuationToken"), headers.get("date", ""))

    async def _remove(self, keys: Sequence[str]) -> None:
        objects = {"Objects": [{"Key": key} for key in keys], "Quiet": True}
        answer = await self.store._call_s3("delete_objects", Bucket=self.bucket, Delete=objects)
        for error in answer.get("Errors", ()):
            message = f"{error.get('Code')}: {error.get('Message')} ({error.get('Key')})"
            refused = error.get("Code") in {"AccessDenied", "AllAccessDisabled"}
            raise (PermissionError if refused else OSError)(message)

    def leftovers(self) -> Leftovers:
        """Return uploads that have not ended; what there is of each is asked for."""
        return self._run(self._leftovers)

    def sweep(self, leftovers: Iterable[Leftover]) -> None:
        """End uploads without an object; their parts go."""
        for leftover in leftovers:
            self._run(self._abort, leftover)

    async def _leftovers(self) -> Leftovers:
        found: Leftovers = []
        try:
            uploads = await self._ask("list", "", lambda: _s3_uploads(self, self._base))
        except StorageError as error:
            # Not everybody may ask for uploads, and not every store can tell them.
            if retry.is_permanent(error) or retry.status(error) == _NOT_IMPLEMENTED:
                return []
            raise
        for upload in uploads:
            key, token = upload["Key"], upload["UploadId"]
            try:
                parts = await self._ask("read", key, partial(_s3_parts, self, key, token))
            except FileNotFoundError:
                continue
            times = [_time_us(each["LastModified"]) for each in parts.values()]
            size = sum(each["Size"] for each in parts.values())
            time_us = max([_time_us(upload["Initiated"]), *times])
            found.append(Leftover(key[len(self._base) :], size, time_us, token))
        return found

    async def _abort(self, leftover: Leftover) -> None:
        asked = {"Key": self._base + leftover.key, "UploadId": leftover.token}

        async def abort() -> None:
            await self.store._call_s3("abort_multipart_upload", Bucket=self.bucket, **asked)

        with suppress(FileNotFoundError):
            await self._ask("delete", leftover.key, abort)

    def _large(self, path: str, size: int) -> Large[Any]:
        del size
        return _S3Large(self, path.removeprefix(f"{self.bucket}/"))

    def _type_option(self, kind: str) -> dict[str, Any]:
        return {"ContentType": kind}

    async def _copy(self, source: str, target: str, size: int) -> None:
        """Copy in one request up to the size that S3 allows; s3fs would ask for it first."""
        if size <= _LARGEST_COPY:
            await self.store._copy_basic(source, target)
        else:
            await super()._copy(source, target, size)


@final
class _S3Large(Large[io.BytesIO]):
    """A multipart upload; the newest that has not ended is gone on with."""

    def __init__(self, fs: S3Filesystem, key: str) -> None:
        self._fs, self._upload = fs, {"Bucket": fs.bucket, "Key": key}
        self._there: dict[int, dict[str, Any]] = {}
        self._tags: dict[int, str] = {}

    async def begin(self, *, anew: bool) -> None:
        key = self._upload["Key"]
        if not anew and await self._go_on(key):
            return
        kind = mimetypes.guess_type(key)[0]
        about = {} if kind is None else {"ContentType": kind}
        call = self._fs.store._call_s3
        answer = await call("create_multipart_upload", **self._upload, **about)
        self._upload["UploadId"] = answer["UploadId"]

    async def _go_on(self, key: str) -> bool:
        """Take the newest upload of this key that has not ended; False if there is none."""
        try:
            uploads = [each for each in await _s3_uploads(self._fs, key) if each["Key"] == key]
            if not uploads:
                return False
            newest = max(uploads, key=lambda each: each["Initiated"])["UploadId"]
            self._there = await _s3_parts(self._fs, key, newest)
        except OSError as error:
            # Not everybody who may write may ask for uploads, and not every store can tell them.
            if retry.is_permanent(error) or retry.status(error) == _NOT_IMPLEMENTED:
                return False
            raise
        self._upload["UploadId"] = newest
        return True

    def hold(self, source: Source, count: int) -> io.BytesIO:
        # The client writes into what it sends from; nobody else may hold it, or there are two.
        return io.BytesIO(source.read(count))

    def has(self, number: int, data: io.BytesIO, mark: str) -> bool:
        del mark
        part = self._there.get(number)
        if part is None:
            return False
        with data.getbuffer() as view:
            # Where a store encrypts with its own keys the tag is another, and the part goes again.
            tag = hashlib.md5(view, usedforsecurity=False).hexdigest()
            if part["Size"] != len(view) or part["ETag"].strip('"') != tag:
                return False
        self._tags[number] = part["ETag"]
        return True

    async def send(self, number: int, data: io.BytesIO, mark: str) -> None:
        del mark
        call = self._fs.store._call_s3
        data.seek(0)
        answer = await call("upload_part", **self._upload, PartNumber=number, Body=data)
        self._tags[number] = answer["ETag"]

    async def end(self) -> None:
        parts = [{"PartNumber": number, "ETag": tag} for number, tag in sorted(self._tags.items())]
        call = self._fs.store._call_s3
        try:
            await call(
                "complete_multipart_upload", **self._upload, MultipartUpload={"Parts": parts}
            )
        except OSError as error:
            # An upload that has ended is gone too, and the answer that says so may get lost.
            if not retry.is_upload_lost(error) or not await self._is_there():
                raise

    async def _is_there(self) -> bool:
        """Tell whether the object is made of these very parts, by the tag that S3 gives it."""
        about = {name: self._upload[name] for name in ("Bucket", "Key")}
        try:
            tags = [bytes.fromhex(tag.strip('"')) for _, tag in sorted(self._tags.items())]
            found = await self._fs.store._call_s3("head_object", **about)
        except (ValueError, FileNotFoundError):  # encrypted with other keys; or nothing is there
            return False
        digest = hashlib.md5(b"".join(tags), usedforsecurity=False).hexdigest()
        is_same: bool = found["ETag"].strip('"') == f"{digest}-{len(tags)}"
        return is_same


async def _s3_uploads(fs: S3Filesystem, prefix: str) -> list[dict[str, Any]]:
    """Return the multipart uploads below a prefix that have not ended."""
    asked = {"Bucket": fs.bucket, "Prefix": prefix}
    found: list[dict[str, Any]] = []
    while True:
        answer = await fs.store._call_s3("list_multipart_uploads", **asked)
        found += answer.get("Uploads", ())
        if not answer.get("IsTruncated"):
            return found
        asked["KeyMarker"] = answer["NextKeyMarker"]
        asked["UploadIdMarker"] = answer["NextUploadIdMarker"]


async def _s3_parts(fs: S3Filesystem, key: str, upload: str) -> dict[int, dict[str, Any]]:
    """Return the parts of an upload by number."""
    asked: dict[str, Any] = {"Bucket": fs.bucket, "Key": key, "UploadId": upload}
    found: dict[int, dict[str, Any]] = {}
    while True:
        answer = await fs.store._call_s3("list_parts", **asked)
        found |= {part["PartNumber"]: part for part in answer.get("Parts", ())}
        if not answer.get("IsTruncated"):
            return found
        asked["PartNumberMarker"] = answer["NextPartNumberMarker"]


@final
class GcsFilesystem(ObjectFilesystem):
    """A lake in a bucket of Google Cloud Storage."""

    batch: ClassVar[int] = 1

    def _connect(self, options: dict[str, Any]) -> Any:  # noqa: ANN401 - fsspec has no types
        return need("gcsfs", extra="gcs").GCSFileSystem(**options)

    async def _page(self, prefix: str, token: str | None, limit: int) -> Page:
        _, headers, _, content = await self.store._request(
            "GET",
            "b/{}/o",
            self.bucket,
            prefix=prefix or None,
            pageToken=token,
            maxResults=limit,
            fields="nextPageToken,items(name,size,updated)",
        )
        answer = json.loads(content)
        entries = [
            Entry(
                item["name"], int(item["size"]), _time_us(datetime.fromisoformat(item["updated"]))
            )
            for item in answer.get("items", ())
        ]
        return Page(entries, answer.get("nextPageToken"), headers.get("Date", ""))

    async def _remove(self, keys: Sequence[str]) -> None:
        await self.store._rm_file(f"{self.bucket}/{keys[0]}")

    def _large(self, path: str, size: int) -> Large[Any]:
        key = path.removeprefix(f"{self.bucket}/")
        return GcsLarge(self, key, size, state_root(self._settings) / "uploads")

    async def begin_upload(self, key: str, kind: str) -> Any:  # noqa: ANN401 - gcsfs has no types
        """Begin a resumable upload; return its address, or what appends to a zonal bucket."""
        gcs = need("gcsfs", extra="gcs").core
        return await gcs.initiate_upload(self.store, self.bucket, key, kind)

    async def append(self, writer: Any, part: memoryview, start: int, size: int) -> None:  # noqa: ANN401 - as above
        """Send a part of an object of `size` bytes to a zonal bucket."""
        gcs = need("gcsfs", extra="gcs").core
        await gcs.upload_chunk(self.store, writer, part, start, size, None)

    def _type_option(self, kind: str) -> dict[str, Any]:
        return {"content_type": kind}

    async def _fetch(self, path: str, file: str, size: int) -> None:
        """Stream in one request up to a size; gcsfs would ask twice for it first."""
        if size <= _LARGEST_STREAM:
            await self.store._get_file_request(path, file)
        else:
            await super()._fetch(path, file, size)


@final
class AzureFilesystem(ObjectFilesystem):
    """A lake in a container of Azure Blob Storage."""

    batch: ClassVar[int] = 1

    def _connect(self, options: dict[str, Any]) -> Any:  # noqa: ANN401 - fsspec has no types
        store = need("adlfs", extra="azure").AzureBlobFileSystem(**options)
        # adlfs takes no option for this; the first pause of Azure's own retry is 15 s.
        pipeline = getattr(store.service_client, "_pipeline", None)
        for policy in getattr(pipeline, "_impl_policies", ()):
            if hasattr(policy, "total_retries"):
                policy.total_retries = 0
        return store

    async def _page(self, prefix: str, token: str | None, limit: int) -> Page:
        dates: list[str] = []
        container = self.store.service_client.get_container_client(self.bucket)
        pages = container.list_blobs(
            name_starts_with=prefix or None,
            include=["metadata"],
            results_per_page=limit,
            raw_response_hook=lambda answer: dates.append(
                answer.http_response.headers.get("Date", "")
            ),
        ).by_page(token)
        entries = []
        async for page in pages:
            # Accounts with real folders list these too, as empty blobs.
            entries = [
                Entry(item.name, item.size, _time_us(item.last_modified))
                async for item in page
                if (item.metadata or {}).get("hdi_isfolder") != "true"
            ]
            break
        return Page(entries, pages.continuation_token or None, dates[-1] if dates else "")

    async def _remove(self, keys: Sequence[str]) -> None:
        await self.store._rm_file(f"{self.bucket}/{keys[0]}")

    def _large(self, path: str, size: int) -> Large[Any]:
        del size
        return _AzureLarge(self, path.removeprefix(f"{self.bucket}/"))

    def _type_option(self, kind: str) -> dict[str, Any]:
        return {"content_settings": {"content_type": kind}}

    async def _copy(self, source: str, target: str, size: int) -> None:
        """Copy, and wait: Azure only begins a copy, and large ones take their time."""
        await super()._copy(source, target, size)
        blob = self.store.service_client.get_blob_client(
            self.bucket, target.removeprefix(f"{self.bucket}/")
        )
        # Azure tells the end of a copy to those who ask, and to nobody else.
        while (state := (await blob.get_blob_properties()).copy.status) == "pending":  # noqa: ASYNC110 - as above
            await asyncio.sleep(_COPY_LOOK_S)
        if state not in {"success", None}:
            message = f"the copy ended as {state!r}"
            raise StorageError(message, url=self.url)


@final
class _AzureLarge(Large[io.BytesIO]):
    """Blocks under names that say what is in them; Azure forgets them after a week."""

    def __init__(self, fs: AzureFilesystem, key: str) -> None:
        self._blob = fs.store.service_client.get_blob_client(fs.bucket, key)
        self._kind = mimetypes.guess_type(key)[0] or "application/octet-stream"
        self._there: set[str] = set()
        self._names: dict[int, str] = {}

    async def begin(self, *, anew: bool) -> None:
        if anew:
            return
        missing = need("azure.core.exceptions", extra="azure").ResourceNotFoundError
        with suppress(missing):
            _, waiting = await self._blob.get_block_list("uncommitted")
            self._there = {block.id for block in waiting}

    def hold(self, source: Source, count: int) -> io.BytesIO:
        return io.BytesIO(source.read(count))

    def has(self, number: int, data: io.BytesIO, mark: str) -> bool:
        del data
        self._names[number] = f"{number:05d}-{mark[:40]}"
        return self._names[number] in self._there

    async def send(self, number: int, data: io.BytesIO, mark: str) -> None:
        del mark
        data.seek(0)
        await self._blob.stage_block(self._names[number], data, length=data.getbuffer().nbytes)

    async def end(self) -> None:
        blob = need("azure.storage.blob", extra="azure")
        blocks = [blob.BlobBlock(name) for _, name in sorted(self._names.items())]
        settings = blob.ContentSettings(content_type=self._kind)
        about = {"is_directory": "false"}  # as adlfs writes it
        await self._blob.commit_block_list(blocks, content_settings=settings, metadata=about)


def _time_us(time: datetime) -> int:
    return int(time.timestamp() * 1_000_000)
