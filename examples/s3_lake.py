"""A lake in a bucket: the same code, another URL.

With RUNLAKE_URL set it writes there, as to s3://bucket/lake; RUNLAKE_STORAGE_OPTIONS holds what
fsspec needs beyond the usual credentials, as {"endpoint_url": "https://minio.example"}.
Without, it starts a stand-in for S3 on this machine (pip install 'moto[server]').
"""

from __future__ import annotations

import logging
import os
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

import runlake

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def bucket() -> Iterator[tuple[str, dict[str, Any] | None]]:
    """Yield the URL of a lake, and what fsspec needs for it."""
    if "RUNLAKE_URL" in os.environ:
        yield os.environ["RUNLAKE_URL"], None
        return
    s3fs, moto = import_module("s3fs"), import_module("moto.server")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # one line a request otherwise
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    options = {"endpoint_url": f"http://{host}:{port}", "key": "any", "secret": "any"}
    s3fs.S3FileSystem(**options).mkdir("example-bucket")
    try:
        yield "s3://example-bucket/team/lake", options
    finally:
        server.stop()


def write(url: str, options: dict[str, Any] | None) -> None:
    """Log a run with an artifact."""
    lake = runlake.open(url, storage_options=options)
    with lake, lake.start_run("in-a-bucket", experiment="clouds") as run:
        for step in range(100):
            run.log({"loss": 1 / (step + 1)}, step=step)
        run.log_text("It lies beside the Parquet files.", "notes/where.txt")


def main() -> None:
    with bucket() as (url, options):
        write(url, options)
        lake = runlake.open(url, storage_options=options, read_only=True)
        print(lake.url)
        print(lake.search_runs().select("run_name", "status", "metrics.loss"))


if __name__ == "__main__":
    main()
