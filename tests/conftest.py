"""What every test may ask for: a filesystem, or the URL of a lake, on each store by name."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Final, NamedTuple

import pytest
from hypothesis import settings

from runlake import ids
from runlake.lake import Lake, open_lake
from runlake.settings import resolve
from runlake.storage.fs import Filesystem, open_filesystem
from runlake.writing import lifecycle

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tests.emulators.fixtures import Cloud

# How long an example takes says more about the machine than about the code.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

pytest_plugins = ["tests.emulators.fixtures"]

_NEAR: Final = ("local", "memory")
_CLOUDS: Final = ("s3", "gcs", "azure")


class Place(NamedTuple):
    """Where a test's lake is."""

    url: str
    storage_options: Mapping[str, object]


def keep_bytecode() -> None:
    """Let every process keep what it has compiled, also where the environment says not to.

    Tests start hundreds of processes, and to compile the package takes longer than many live.
    """
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False


def pytest_configure(config: pytest.Config) -> None:
    """Let gcsfs hand large bodies to aiohttp as bytes; what aiohttp warns of is gcsfs's to mend."""
    keep_bytecode()
    config.addinivalue_line(
        "filterwarnings", "ignore:Sending a large body directly with raw bytes:ResourceWarning"
    )


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the caller choose the stores."""
    parser.addoption(
        "--filesystems",
        default=",".join(_NEAR),
        help=f"stores to test on, comma-separated, of {', '.join(_NEAR + _CLOUDS)}",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that asks for a filesystem once on each store."""
    if "filesystem_name" not in metafunc.fixturenames:
        return
    names = metafunc.config.getoption("--filesystems").split(",")
    unknown = set(names) - {*_NEAR, *_CLOUDS}
    if unknown:
        message = f"--filesystems: unknown {', '.join(sorted(unknown))}"
        raise pytest.UsageError(message)
    only = metafunc.definition.get_closest_marker("filesystems")
    if only is not None:
        names = [name for name in names if name in only.args] or names[:1]
    marked = [
        pytest.param(name, marks=getattr(pytest.mark, name) if name in _CLOUDS else ())
        for name in names
    ]
    metafunc.parametrize("filesystem_name", marked, scope="session")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out tests that are marked with a cloud that was not asked for."""
    away = set(_CLOUDS) - set(config.getoption("--filesystems").split(","))
    left = [item for item in items if any(item.get_closest_marker(name) for name in away)]
    if left:
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if item not in set(left)]


@pytest.fixture
def cloud(filesystem_name: str, request: pytest.FixtureRequest) -> Cloud | None:
    """The emulated store of this test; None on the near ones."""
    if filesystem_name in _NEAR:
        return None
    found: Cloud = request.getfixturevalue(f"{filesystem_name}_cloud")
    return found


@pytest.fixture
def lake_url(filesystem_name: str, cloud: Cloud | None, tmp_path: Path) -> Place:
    """A place without objects, for one test: its URL, and what fsspec needs for it."""
    fresh = f"test-{ids.new_nonce()}"
    if cloud is not None:
        return Place(f"{cloud.scheme}://lake-bucket/{fresh}/lake", cloud.storage_options)
    if filesystem_name == "memory":
        return Place(f"memory://{fresh}/lake", {})
    return Place(str(tmp_path / "lake"), {})


@pytest.fixture
def filesystem(lake_url: Place) -> Iterator[Filesystem]:
    """A filesystem on an empty root."""
    own, _ = resolve()
    options = lake_url.storage_options
    opened = open_filesystem(lake_url.url, storage_options=options, settings=own)
    yield opened
    if lake_url.url.startswith("memory:"):
        opened.delete_many([entry.key for entry in opened.list("")])


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Journals and caches of one test only, no settings from outside, nothing left open.

    Provenance is off but in the tests that are about it: it comes when it is ready, and would
    make tests that count rows, objects or requests say something else each time.
    """
    for variable in [name for name in os.environ if name.startswith("RUNLAKE_")]:
        if variable != "RUNLAKE_AZURITE":
            monkeypatch.delenv(variable)
    monkeypatch.setenv("RUNLAKE_JOURNAL", str(tmp_path / "state"))
    monkeypatch.setenv("RUNLAKE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("RUNLAKE_PROVENANCE", "off")
    yield
    lifecycle.end()


@pytest.fixture
def lake(lake_url: Place) -> Iterator[Lake]:
    """A lake that nobody has written to yet, on each store."""
    with open_lake(lake_url.url, storage_options=lake_url.storage_options) as opened:
        yield opened
