"""A stand-in for the JSON API of Google Cloud Storage: as much of it as gcsfs uses.

It honours `ifGenerationMatch`, which the emulators on the package index ignore.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import re
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable

Json = dict[str, Any]


class _RefusedError(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass
class Blob:
    """One object."""

    data: bytes
    generation: int
    updated: str
    content_type: str


@dataclass
class Upload:
    """A resumable upload; `answer` is what was said when it was complete."""

    bucket: str
    name: str
    absent_only: bool
    data: bytearray = field(default_factory=bytearray)
    answer: Json | None = None


class Gcs:
    """The server; every request runs under one lock, so that it is atomic.

    Attributes:
        buckets: objects by bucket and name.
        uploads: resumable uploads by number; one that is taken out has expired.
        keeps: of the next request to a resumable upload the bytes that are kept, as when the
            line breaks in the middle; None: all.
        hesitates: how often it is still told that an upload is incomplete that has all its bytes.
    """

    def __init__(self) -> None:
        """Start on a free port of 127.0.0.1."""
        self.buckets: dict[str, dict[str, Blob]] = {}
        self.uploads: dict[str, Upload] = {}
        self.keeps: int | None = None
        self.hesitates = 0
        self.lock = threading.Lock()
        self._generations, self.numbers = itertools.count(1), itertools.count(1)
        handler = type("Handler", (_Handler,), {"gcs": self})
        self._server = _Server(("127.0.0.1", 0), handler)
        self.host = f"127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()

    def bucket(self, name: str) -> dict[str, Blob]:
        """Return a bucket's objects by name."""
        try:
            return self.buckets[name]
        except KeyError:
            raise _RefusedError(404, "The specified bucket does not exist.") from None

    def blob(self, bucket: str, name: str) -> Blob:
        """Return an object."""
        try:
            return self.bucket(bucket)[name]
        except KeyError:
            raise _RefusedError(404, f"No such object: {bucket}/{name}") from None

    def write(self, bucket: str, name: str, data: bytes, *, absent_only: bool) -> Json:
        """Store an object; 412 if it must be absent and is not."""
        blobs = self.bucket(bucket)
        if absent_only and name in blobs:
            raise _RefusedError(412, "A precondition did not hold.")
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        blobs[name] = Blob(data, next(self._generations), now, "application/octet-stream")
        return describe(bucket, name, blobs[name])


def describe(bucket: str, name: str, blob: Blob) -> Json:
    """Return an object's resource as the API shows it."""
    return {
        "kind": "storage#object",
        "bucket": bucket,
        "name": name,
        "size": str(len(blob.data)),
        "generation": str(blob.generation),
        "updated": blob.updated,
        "timeCreated": blob.updated,
        "contentType": blob.content_type,
        "md5Hash": base64.b64encode(hashlib.md5(blob.data).digest()).decode(),  # noqa: S324 - the API's
    }


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - as above it
        """Say nothing: clients may hang up."""


_GRAIN = 256 << 10


def _content_range(text: str) -> tuple[int | None, int, int]:
    """Return the first byte, None if it only asks, the last one, and the number of all."""
    part, total = text.removeprefix("bytes ").split("/")
    if part == "*":
        return None, -1, int(total)
    first, last = part.split("-")
    return int(first), int(last), int(total)


_OBJECT = r"/storage/v1/b/([^/]+)/o/([^/]+)"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    gcs: Gcs

    def _serve(self) -> None:
        split = urlsplit(self.path)
        self.query = dict(parse_qsl(split.query, keep_blank_values=True))
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            with self.gcs.lock:
                self._route(split.path)
        except _RefusedError as error:
            said = {"error": {"code": error.status, "message": str(error)}}
            self._reply(error.status, json.dumps(said).encode())

    def _route(self, path: str) -> None:
        for method, pattern, action in _ROUTES:
            match = re.fullmatch(pattern, path)
            if match and method == self.command:
                action(self, *map(unquote, match.groups()))
                return
        raise _RefusedError(501, f"{self.command} {self.path} is not emulated.")

    def _list(self, bucket: str) -> None:
        prefix, delimiter = self.query.get("prefix", ""), self.query.get("delimiter", "")
        after, limit = self.query.get("pageToken", ""), int(self.query.get("maxResults", "1000"))
        items: list[Json] = []
        prefixes: set[str] = set()
        answer: Json = {"kind": "storage#objects"}
        for name, blob in sorted(self.gcs.bucket(bucket).items()):
            if not name.startswith(prefix) or name <= after:
                continue
            if len(items) + len(prefixes) == limit:
                answer["nextPageToken"] = items[-1]["name"] if items else name
                break
            below = name[len(prefix) :]
            if delimiter and delimiter in below:
                prefixes.add(prefix + below.partition(delimiter)[0] + delimiter)
            else:
                items.append(describe(bucket, name, blob))
        self._json(answer | {"items": items, "prefixes": sorted(prefixes)})

    def _read(self, bucket: str, name: str) -> None:
        blob = self.gcs.blob(bucket, name)
        if self.query.get("alt") != "media":
            self._json(describe(bucket, name, blob))
            return
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if wanted is None:
            self._reply(200, blob.data)
            return
        start = int(wanted[1])
        end = min(int(wanted[2] or len(blob.data)), len(blob.data) - 1)
        if start >= len(blob.data):
            raise _RefusedError(416, "The requested range cannot be satisfied.")
        said = {"Content-Range": f"bytes {start}-{end}/{len(blob.data)}"}
        self._reply(206, blob.data[start : end + 1], said)

    def _begin_upload(self, bucket: str) -> None:
        absent_only = self.query.get("ifGenerationMatch") == "0"
        kind = self.query.get("uploadType")
        if kind == "media":
            self._json(
                self.gcs.write(bucket, self.query["name"], self.body, absent_only=absent_only)
            )
        elif kind == "multipart":
            mark = re.search('boundary="?([^";]+)', self.headers["Content-Type"])
            parts = self.body.split(b"--" + (mark[1] if mark else "").encode())
            about, data = (part.partition(b"\n\n")[2] for part in parts[1:3])
            name = json.loads(about)["name"]
            self._json(self.gcs.write(bucket, name, data[:-1], absent_only=absent_only))
        else:
            self.gcs.bucket(bucket)
            name = self.query.get("name") or json.loads(self.body)["name"]
            number = str(next(self.gcs.numbers))
            self.gcs.uploads[number] = Upload(bucket, name, absent_only)
            where = f"http://{self.headers['Host']}/resumable/{number}?uploadType=resumable"
            self._reply(200, b"", {"Location": where})

    def _go_on_upload(self, number: str) -> None:
        """Take bytes, or tell how many there are: as "Perform resumable uploads" has it.

        Bytes that are there already are passed over; those behind a gap are refused.
        """
        upload = self.gcs.uploads.get(number)
        if upload is None:
            raise _RefusedError(404, "There is no such upload.")
        first, last, total = _content_range(self.headers["Content-Range"])
        if upload.answer is None and first is not None:
            if last + 1 < total and len(self.body) % _GRAIN:
                raise _RefusedError(400, f"Parts but the last are multiples of {_GRAIN} bytes.")
            if first > len(upload.data):
                raise _RefusedError(503, f"{first} exceeds already uploaded {len(upload.data)}.")
            kept, self.gcs.keeps = self.body[: self.gcs.keeps], None
            upload.data += kept[len(upload.data) - first :]
        is_late = len(upload.data) == total and self.gcs.hesitates > 0
        self.gcs.hesitates -= is_late
        if upload.answer is None and (len(upload.data) < total or is_late):
            known = {"Range": f"bytes=0-{len(upload.data) - 1}"} if upload.data else {}
            self._reply(308, b"", known)
            return
        if upload.answer is None:
            data, absent = bytes(upload.data), upload.absent_only
            upload.answer = self.gcs.write(upload.bucket, upload.name, data, absent_only=absent)
            upload.data.clear()
        self._json(upload.answer)

    def _drop_upload(self, number: str) -> None:
        self.gcs.uploads.pop(number, None)
        self._reply(204, b"")

    def _copy(self, bucket: str, name: str, target: str, target_name: str) -> None:
        data = self.gcs.blob(bucket, name).data
        copied = self.gcs.write(target, target_name, data, absent_only=False)
        self._json({"kind": "storage#rewriteResponse", "done": True, "resource": copied})

    def _delete(self, bucket: str, name: str) -> None:
        self.gcs.blob(bucket, name)
        del self.gcs.bucket(bucket)[name]
        self._reply(204, b"")

    def _batch(self) -> None:
        answers = []
        for line in re.findall(rb"DELETE (\S+) HTTP/1.1", self.body):
            match = re.fullmatch(_OBJECT, urlsplit(line.decode()).path)
            names = [unquote(part) for part in match.groups()] if match else ["", ""]
            gone = self.gcs.buckets.get(names[0], {}).pop(names[1], None)
            status = "404 Not Found" if gone is None else "204 No Content"
            part = f"Content-Type: application/http\r\n\r\nHTTP/1.1 {status}\r\n"
            answers.append(f"--batch_x\r\n{part}")
        data = "".join([*answers, "--batch_x--"]).encode()
        self._reply(200, data, {"Content-Type": "multipart/mixed; boundary=batch_x"})

    def _json(self, answer: Json) -> None:
        self._reply(200, json.dumps(answer).encode(), {"Content-Type": "application/json"})

    def _reply(self, status: int, data: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    do_GET = do_PUT = do_POST = do_DELETE = _serve  # noqa: N815 - the library's names


_ROUTES: list[tuple[str, str, Callable[..., None]]] = [
    ("GET", r"/storage/v1/b/([^/]+)/o", _Handler._list),
    ("GET", rf"(?:/download)?{_OBJECT}", _Handler._read),
    ("DELETE", _OBJECT, _Handler._delete),
    ("POST", r"/upload/storage/v1/b/([^/]+)/o", _Handler._begin_upload),
    ("POST", r"/resumable/(\d+)", _Handler._go_on_upload),
    ("PUT", r"/resumable/(\d+)", _Handler._go_on_upload),
    ("DELETE", r"/resumable/(\d+)", _Handler._drop_upload),
    ("POST", rf"{_OBJECT}/(?:rewriteTo|copyTo)/b/([^/]+)/o/([^/]+)", _Handler._copy),
    ("POST", r"/batch/storage/v1", _Handler._batch),
]
