"""A proxy that counts requests, loses answers and refuses service when a test says so."""

from __future__ import annotations

import http.client
import threading
from collections import Counter
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_OWN_HEADERS: Final = {"connection", "expect", "keep-alive", "transfer-encoding"}


@dataclass
class Fault:
    """What happens to the next requests.

    Attributes:
        method: the requests that are meant.
        times: how many of them.
        status: the answer instead of the server's; None: no answer, but the effect.
        body: what the answer says.
        after: how many of them pass before.
        path: what must be in their paths.
        deed: done when one is met.
    """

    method: str
    times: int
    status: int | None
    body: bytes = b""
    after: int = 0
    path: str = ""
    deed: Callable[[], None] | None = None


class Proxy:
    """Stands before one server.

    Attributes:
        requests: method and path of each request so far.
        sent_bytes: in the bodies of all requests so far that the server has answered.
        meeting: if set, each request waits here for the others.
        under_way: requests that have no answer yet.
        most_under_way: the greatest number of them at once so far.
    """

    def __init__(self, target: str) -> None:
        """Start on a free port; `target` is the server's `host:port`."""
        self.requests: list[tuple[str, str]] = []
        self.sent_bytes = 0
        self.meeting: threading.Barrier | None = None
        self.under_way = 0
        self.most_under_way = 0
        self._faults: list[Fault] = []
        self.lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"proxy": self, "target": target})
        self._server = _Server(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()

    @contextmanager
    def fault(self, fault: Fault) -> Iterator[Fault]:
        """Let a fault happen inside the block."""
        self._faults.append(fault)
        try:
            yield fault
        finally:
            self._faults.remove(fault)

    def counted(self, since: int) -> Counter[str]:
        """Return how many requests of each method came after the first `since` ones."""
        return Counter(method for method, _ in self.requests[since:])

    def take(self, method: str, path: str) -> Fault | None:
        """Note a request, and return the fault that it meets."""
        with self.lock:
            self.requests.append((method, path))
            self.under_way += 1
            self.most_under_way = max(self.most_under_way, self.under_way)
            for fault in self._faults:
                if fault.method != method or fault.path not in path or not fault.times:
                    continue
                if fault.after:
                    fault.after -= 1
                    continue
                fault.times -= 1
                return fault
        return None


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - as above it
        """Say nothing: clients that hang up are what these tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: Proxy
    target: str

    def _pass(self) -> None:
        fault = self.proxy.take(self.command, self.path)
        try:
            if fault is not None and fault.deed is not None:
                fault.deed()
            if self.proxy.meeting is not None:
                self.proxy.meeting.wait()
            self._serve(fault)
        finally:
            self.proxy.under_way -= 1

    def _serve(self, fault: Fault | None) -> None:
        body = self._body()
        if fault is not None and fault.status is not None:
            self._answer(fault.status, {"Content-Type": "application/xml"}, fault.body)
            return
        kept = {k: v for k, v in self.headers.items() if k.lower() not in _OWN_HEADERS}
        kept["Content-Length"] = str(len(body))
        # One connection a request: servers hang up on those that rest for seconds.
        with closing(http.client.HTTPConnection(self.target)) as behind:
            behind.request(self.command, self.path, body, kept)
            response = behind.getresponse()
            data = response.read()
        with self.proxy.lock:
            self.proxy.sent_bytes += len(body)
        if fault is not None:
            self.close_connection = True
            return
        self._answer(response.status, dict(response.getheaders()), data)

    def _answer(self, status: int, headers: dict[str, str], data: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in _OWN_HEADERS | {"content-length"}:
                self.send_header(name, value)
        length = headers.get("Content-Length", "0") if self.command == "HEAD" else len(data)
        if status not in {204, 304}:
            self.send_header("Content-Length", str(length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        chunks = []
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _pass  # noqa: N815 - the library's names
