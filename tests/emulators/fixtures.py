"""The servers that far filesystems are tested against: started when a test first asks.

S3 is moto's server, Google Cloud Storage the stand-in beside this file, Azure is Azurite.
Each stands behind a proxy of its own and holds one bucket; a test takes a fresh prefix.
"""

from __future__ import annotations

import http.client
import os
import shutil
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from tests.emulators.gcs import Gcs
from tests.emulators.proxy import Proxy
from tests.emulators.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

BUCKET: Final = "lake-bucket"
_ROOT: Final = Path(__file__).parents[2]
_AZURE_ACCOUNT: Final = "devstoreaccount1"
# The key that Azurite's documentation publishes for its one account.
_AZURE_KEY: Final = (
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)


@dataclass(frozen=True)
class Cloud:
    """One emulated store.

    Attributes:
        scheme: of its URLs.
        proxy: what all requests go through.
        storage_options: what fsspec needs to find it.
    """

    scheme: str
    proxy: Proxy
    storage_options: Mapping[str, object]


@pytest.fixture(scope="session")
def s3_cloud() -> Iterator[Cloud]:
    """Amazon S3, by moto."""
    server = pytest.importorskip("moto.server").ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    connection = http.client.HTTPConnection(host, port)
    connection.request("PUT", f"/{BUCKET}")
    assert connection.getresponse().status == 200
    connection.close()
    proxy = Proxy(f"{host}:{port}")
    options = {"endpoint_url": proxy.url, "key": "key", "secret": "secret"}
    yield Cloud("s3", proxy, options)
    proxy.stop()
    server.stop()


@pytest.fixture(scope="session")
def gcs_server() -> Iterator[Gcs]:
    """The stand-in for Google Cloud Storage itself, which tests may look into."""
    server = Gcs()
    server.buckets[BUCKET] = {}
    yield server
    server.stop()


@pytest.fixture(scope="session")
def gcs_cloud(gcs_server: Gcs) -> Iterator[Cloud]:
    """Google Cloud Storage, by the stand-in."""
    with pytest.MonkeyPatch.context() as patch:
        # Else gcsfs asks Google over gRPC what kind of bucket this is, for 78 seconds.
        patch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
        pytest.importorskip("gcsfs")
        proxy = Proxy(gcs_server.host)
        yield Cloud("gs", proxy, {"endpoint_url": proxy.url, "token": "anon", "project": "p"})
        proxy.stop()


@pytest.fixture(scope="session")
def azure_cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """Azure Blob Storage, by Azurite; skipped where that is not installed."""
    blob = pytest.importorskip("azure.storage.blob")
    found = os.environ.get("RUNLAKE_AZURITE") or _ROOT / "node_modules/.bin/azurite-blob"
    program = shutil.which(found)
    if program is None:
        pytest.skip(f"{found} is not there: npm install azurite@3.37.0, or set RUNLAKE_AZURITE")
    port = _free_port()
    command = [program, "--silent", "--inMemoryPersistence", "--skipApiVersionCheck"]
    command += ["--disableTelemetry", "--blobHost", "127.0.0.1", "--blobPort", str(port)]
    folder = tmp_path_factory.mktemp("azurite")
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL) as server:
        try:
            wait_until(lambda: _listens(port), seconds=50)
            proxy = Proxy(f"127.0.0.1:{port}")
            line = (
                f"DefaultEndpointsProtocol=http;AccountName={_AZURE_ACCOUNT};"
                f"AccountKey={_AZURE_KEY};BlobEndpoint={proxy.url}/{_AZURE_ACCOUNT};"
            )
            with blob.BlobServiceClient.from_connection_string(line) as service:
                service.create_container(BUCKET)
            yield Cloud("az", proxy, {"connection_string": line})
            proxy.stop()
        finally:
            server.terminate()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0
