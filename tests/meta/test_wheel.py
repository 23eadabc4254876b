"""What users install: the package with its types, and nothing else."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING

import runlake
from tests.meta.tree import ROOT, SRC

if TYPE_CHECKING:
    from pathlib import Path


def test_wheel_holds_the_package_its_types_and_its_licence_only(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    described = f"runlake-{runlake.__version__}.dist-info"
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        entry_points = archive.read(f"{described}/entry_points.txt").decode()
    modules = {f"runlake/{file.relative_to(SRC).as_posix()}" for file in SRC.rglob("*.py")}
    about = {"METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE"}
    assert wheel.name == f"runlake-{runlake.__version__}-py3-none-any.whl"
    assert names == modules | {"runlake/py.typed"} | {f"{described}/{name}" for name in about}
    assert "runlake = runlake.__main__:run" in entry_points
