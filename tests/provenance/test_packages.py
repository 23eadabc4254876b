from __future__ import annotations

import re
import sys
from importlib import metadata
from typing import TYPE_CHECKING

from runlake.provenance.packages import installed

if TYPE_CHECKING:
    from pathlib import Path


def test_packages_are_those_that_the_import_system_knows() -> None:
    known: dict[str, str] = {}
    for package in metadata.distributions():
        name = re.sub(r"[-_.]+", "-", package.metadata["Name"]).lower()
        known.setdefault(name, package.version)
    found = installed(sys.path)
    assert found == known
    assert list(found) == sorted(found)


def test_of_a_package_in_two_folders_the_first_counts(tmp_path: Path) -> None:
    (tmp_path / "a" / "Some_Package.x-1.0.dist-info").mkdir(parents=True)
    (tmp_path / "b" / "some.package-x-2.0.dist-info").mkdir(parents=True)
    old = tmp_path / "b" / "old.egg-info"
    old.mkdir()
    (old / "PKG-INFO").write_text("Metadata-Version: 1.0\nName: Old_One\nVersion: 3.0\n")
    (tmp_path / "b" / "single-4.0-py3.11.egg-info").write_text("Name: single\nVersion: 4.0\n")
    (tmp_path / "b" / "broken.dist-info").mkdir()
    path = [str(tmp_path / name) for name in ("gone", "a", "b", "a")]
    assert installed(path) == {"old-one": "3.0", "single": "4.0", "some-package-x": "1.0"}
