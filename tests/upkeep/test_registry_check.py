"""What verify says of the model registry: claims, their events, and what versions point at."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from runlake.lake import open_lake
from runlake.storage import layout
from runlake.storage.localfs import LocalFilesystem
from runlake.upkeep.checks.findings import DAMAGED, MISSING, MODEL, UNKNOWN, UNTRACED
from runlake.upkeep.checks.verify import verify
from runlake.upkeep.compact import Compactor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runlake.lake import Lake
    from runlake.storage.filesystem import Filesystem


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[Lake]:
    """A lake with two models of three versions each; the first is renamed."""
    with open_lake(str(tmp_path / "lake")) as opened:
        with opened.start_run("svm") as run:
            run.log_text("weights", "model/weights.txt")
            run.log_text("notes", "notes.txt")
        for name in ("digits", "wine"):
            for path in ("model", "model/weights.txt", "notes.txt"):
                opened.registry.register_model(f"runs:/{run.run_id}/{path}", name)
        opened.registry.rename_registered_model("digits", "figures")
        yield opened


@pytest.fixture
def fs(lake: Lake) -> Filesystem:
    """Its files."""
    return LocalFilesystem(Path(lake.url))


@pytest.fixture
def run_id(lake: Lake) -> str:
    """The run that made all versions."""
    found: str = lake.sql("SELECT run_id FROM runs").item()
    return found


def found_in(fs: Filesystem) -> list[tuple[str, str]]:
    """Return what verify finds, without what vacuum takes."""
    report = verify(fs)
    return [(each.kind, each.key) for each in report.findings if each.kind != "superseded"]


def claims_of(fs: Filesystem, name: str) -> list[str]:
    """Return the keys of the claims of a model's versions."""
    keys = [entry.key for entry in fs.list(layout.MODEL_NAMES)]
    found = [key for key in keys if layout.parse_version_claim(key) is not None]
    return [key for key in found if json.loads(fs.get(key))["name"] == name]


@pytest.mark.parametrize("is_compacted", [False, True])
def test_a_registry_without_fault_is_sound(
    lake: Lake, fs: Filesystem, *, is_compacted: bool
) -> None:
    lake.close()
    if is_compacted:
        keeper = Compactor(fs, lake=lake._storage.require_lake())
        for experiment in keeper.experiments():
            keeper.compact(experiment)
    report = verify(fs)
    assert report.is_sound, report.findings
    assert not {each.kind for each in report.findings} & {UNKNOWN, UNTRACED, MODEL}


def test_a_gap_in_the_numbers_is_found(lake: Lake, fs: Filesystem) -> None:
    lake.close()
    gone = claims_of(fs, "wine")[1]
    fs.delete_many([gone])
    assert found_in(fs) == [(MISSING, gone)] * 2  # later ones are there, and an event tells of it


def test_an_event_without_its_claim_is_found(lake: Lake, fs: Filesystem) -> None:
    lake.close()
    last = claims_of(fs, "wine")[-1]
    fs.delete_many([last])
    ((kind, key),) = found_in(fs)
    assert (kind, key) == (MISSING, last)
    (finding,) = [each for each in verify(fs).findings if each.kind == MISSING]
    assert "version 3" in finding.detail
    assert "given out again" in finding.detail


def test_a_claim_without_an_event_is_named_and_no_fault(lake: Lake, fs: Filesystem) -> None:
    lake.close()
    last = claims_of(fs, "wine")[-1]
    home, number = layout.parse_version_claim(last) or ("", 0)
    claim = json.loads(fs.get(last)) | {"number": number + 1}
    fs.put(layout.version_claim(home, number + 1), json.dumps(claim).encode())
    assert found_in(fs) == [(UNTRACED, layout.version_claim(home, number + 1))]
    assert verify(fs).is_sound


@pytest.mark.parametrize(
    "change",
    [b" ", b"[]", b"{", {"number": 7}, {"model_id": "model:other"}, {"tags": 3}, {"nonce": None}],
    ids=repr,
)
def test_a_damaged_claim_is_found(
    lake: Lake, fs: Filesystem, change: bytes | dict[str, object]
) -> None:
    lake.close()
    key = claims_of(fs, "wine")[0]
    data = change
    if isinstance(change, dict):
        fields = json.loads(fs.get(key)) | change
        data = json.dumps({name: each for name, each in fields.items() if each}).encode()
    assert isinstance(data, bytes)
    fs.put(key, data)
    assert (DAMAGED, key) in found_in(fs)


def test_a_claim_under_another_name_and_versions_without_a_model_are_found(
    lake: Lake, fs: Filesystem
) -> None:
    lake.close()
    version = claims_of(fs, "wine")[0]
    home, _ = layout.parse_version_claim(version) or ("", 0)
    model = layout.model_claim(home)
    data = fs.get(model)
    fs.delete_many([model])
    assert (MISSING, model) in found_in(fs)
    fs.put(model, data.replace(b'"wine"', b'"vine"'))
    assert (DAMAGED, model) in found_in(fs)


def test_a_version_whose_run_was_purged_points_at_nothing(
    lake: Lake, fs: Filesystem, run_id: str
) -> None:
    lake.registry.delete_model_version("figures", 2)
    lake.registry.delete_registered_model("wine")
    (left,) = lake.maintain.purge([run_id], alone=True).left[:1]
    assert (left.kind, left.place) == ("model", claims_of(fs, "digits")[0])
    assert "version 1 of model 'digits'" in left.reason
    found = [each for each in verify(fs).findings if each.kind == MODEL]
    assert [each.key for each in found] == [
        key for key in claims_of(fs, "digits") if not key.endswith("2.json")
    ]
    assert all(f"run {run_id} was purged" in each.detail for each in found)
    assert not verify(fs).is_sound


def test_a_version_whose_files_were_deleted_points_at_nothing(
    lake: Lake, fs: Filesystem, run_id: str
) -> None:
    lake.artifacts.delete(run_id, "model/weights.txt")
    lake.close()
    found = [each for each in verify(fs).findings if each.kind == MODEL]
    numbers = [layout.parse_version_claim(each.key) for each in found]
    assert sorted(number for _, number in filter(None, numbers)) == [1, 1, 2, 2]
    assert all("were deleted" in each.detail for each in found)
