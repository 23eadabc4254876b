"""How many requests a second does MLflow's server take on a lake, beside SQLite?

The same worker of MLflow's own server twice, over HTTP on this machine: once with a lake behind it,
once with its SQLite store. Clients send one point with each request and wait for the answer.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Final

from benchmarks.bench_mlflow import pair
from benchmarks.harness import AT_LEAST, AT_MOST, Figure, scratch, shown_rounds

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from benchmarks.harness import Options

_LAKE: Final = "runlake"
_SQLITE: Final = "mlflow"
_CLIENTS: Final = 4
_BEGAN_MS: Final = 1_750_000_000_000
_PATIENCE_S: Final = 120
# What a worker of `mlflow server` runs; it ends with whoever started it.
_SERVER: Final = """
import socket, sys, threading, uvicorn
from mlflow.server.fastapi_app import app
listener = socket.create_server(("127.0.0.1", 0), backlog=128)
print(listener.getsockname()[1], flush=True)
server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
end = lambda: (sys.stdin.read(), setattr(server, "should_exit", True))
threading.Thread(target=end, daemon=True).start()
server.run(sockets=[listener])
"""


def measure(options: Options) -> list[Figure]:
    """Return requests a second and how soon they are answered; and the objects that this made."""
    requests = options.size(600, quick=20)
    rates: dict[str, list[float]] = {_LAKE: [], _SQLITE: []}
    asked: dict[str, list[float]] = {_LAKE: [], _SQLITE: []}
    objects: list[float] = []
    with scratch() as folder, _serve(_LAKE, folder) as lake, _serve(_SQLITE, folder) as sqlite:
        for number in range(options.size(4, quick=2)):
            for who, port in ((_LAKE, lake), (_SQLITE, sqlite)):
                before = _objects(folder)
                rate, wait_s = _round(port, requests, f"round {number}")
                if number:  # the first one warms up
                    rates[who].append(rate)
                    asked[who].append(wait_s * 1e3)
                if number and who == _LAKE:
                    objects.append(max(0, _objects(folder) - before))
    sizes = f"{_CLIENTS} clients, {requests} requests each round"
    logged = {
        who: (statistics.median(found), f"{sizes}; {shown_rounds(found)}")
        for who, found in rates.items()
    }
    read = {who: (statistics.median(found), shown_rounds(found)) for who, found in asked.items()}
    return [
        *pair("log-metric over HTTP", "requests/s", logged, AT_LEAST),
        *pair("a run, asked for when all are logged", "ms", read, AT_MOST),
        Figure(
            "objects that these requests left",
            statistics.median(objects),
            "objects",
            bound=requests / 10,
            note=f"for {requests} requests; {shown_rounds(objects)}",
        ),
    ]


@contextlib.contextmanager
def _serve(who: str, folder: Path) -> Iterator[int]:
    """Run a server on a store in a folder; give its port."""
    uri = f"sqlite:///{folder}/mlflow.db" if who == _SQLITE else f"runlake://{folder}/lake"
    given = {
        "_MLFLOW_SERVER_FILE_STORE": uri,
        "_MLFLOW_SERVER_REGISTRY_STORE": uri,
        "_MLFLOW_SERVER_ARTIFACT_ROOT": "mlflow-artifacts:/",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        "MLFLOW_LOGGING_LEVEL": "ERROR",
    }
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", _SERVER],
        cwd=folder,
        env={**os.environ, **given},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.stdin.close()
            process.wait(_PATIENCE_S)


def _round(port: int, requests: int, name: str) -> tuple[float, float]:
    """Let clients log to a run each; return requests a second, and seconds of the first answer."""
    client = _Client(port)
    experiment = client.post("experiments/create", {"name": name})["experiment_id"]
    began = {"experiment_id": experiment, "start_time": _BEGAN_MS}
    runs = [client.post("runs/create", began)["run"]["info"]["run_id"] for _ in range(_CLIENTS)]
    share = requests // _CLIENTS
    threads = [threading.Thread(target=_log, args=(port, run, share)) for run in runs]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - start
    client = _Client(port)  # the server has let go of the other, which was silent for seconds
    start = time.perf_counter()
    [latest] = client.get(f"runs/get?run_id={runs[0]}")["run"]["data"]["metrics"]
    wait_s = time.perf_counter() - start
    assert latest["step"] == share - 1
    for run in runs:
        path = f"metrics/get-history?run_id={run}&metric_key=loss&max_results={share + 1}"
        assert len(client.get(path)["metrics"]) == share
    return share * _CLIENTS / seconds, wait_s


def _log(port: int, run_id: str, count: int) -> None:
    client = _Client(port)
    for step in range(count):
        point = {"key": "loss", "value": 1 / (step + 1), "step": step}
        client.post("runs/log-metric", {"run_id": run_id, "timestamp": _BEGAN_MS + step, **point})


class _Client:
    """One connection to a server, kept open."""

    def __init__(self, port: int) -> None:
        self._line = http.client.HTTPConnection("127.0.0.1", port, timeout=_PATIENCE_S)

    def get(self, path: str) -> Any:  # noqa: ANN401 - JSON
        """Ask."""
        self._line.request("GET", f"/api/2.0/mlflow/{path}")
        return self._answer()

    def post(self, path: str, body: dict[str, object]) -> Any:  # noqa: ANN401 - JSON
        """Say."""
        kind = {"Content-Type": "application/json"}
        self._line.request("POST", f"/api/2.0/mlflow/{path}", json.dumps(body), kind)
        return self._answer()

    def _answer(self) -> Any:  # noqa: ANN401 - JSON
        answer = self._line.getresponse()
        text = answer.read()
        assert answer.status == http.client.OK, text
        return json.loads(text)


def _objects(folder: Path) -> int:
    return sum(1 for _ in (folder / "lake").rglob("*.parquet"))
