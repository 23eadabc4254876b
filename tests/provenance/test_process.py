from __future__ import annotations

import json
import os
import platform
import shlex
import sys
from typing import TYPE_CHECKING, Any

from runlake.provenance import process
from runlake.provenance.process import describe_host, describe_process
from runlake.provenance.start import Start
from runlake.redaction import redactor
from tests.meta.tree import run_python

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

SAY = """
import json
from runlake.provenance.process import describe_process
from runlake.provenance.start import Start
from runlake.redaction import redactor
print(json.dumps(describe_process(Start.now(), redactor(None), user="me")))
"""


def describe(*arguments: str) -> dict[str, Any]:
    """Describe a process with these arguments."""
    start = Start.now()._replace(arguments=("train.py", *arguments))
    return describe_process(start, redactor(None), user="me")


def notebook() -> tuple[str, str | None]:
    """Return what a run would be told."""
    start = Start.now()
    return start.kind, start.name


def test_a_script_is_known_by_its_path_and_arguments(tmp_path: Path) -> None:
    script = tmp_path / "train it.py"
    script.write_text(SAY)
    said = json.loads(run_python(script, "--lr", "0.1", "--password", "hunter2", folder=tmp_path))
    assert (said["kind"], said["script"]) == ("script", str(script))
    assert said["arguments"] == ["--lr", "0.1", "--password", "<redacted>"]
    assert shlex.split(said["command"]) == [
        sys.executable,
        "-W",
        "error",
        str(script),
        *said["arguments"],
    ]
    assert said["working_directory"] == str(tmp_path)
    assert (said["python"], said["user"]) == (platform.python_version(), "me")


def test_modules_commands_and_packages_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "single.py").write_text(SAY)
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").touch()
    (tmp_path / "package" / "__main__.py").write_text(SAY)
    found = []
    for arguments in (["-m", "single"], ["-m", "package", "--x"], ["-c", SAY]):
        said = json.loads(run_python(*arguments, folder=tmp_path))
        found.append((said["kind"], said.get("module"), said["arguments"]))
    assert found == [
        ("module", "single", []),
        ("module", "package", ["--x"]),
        ("command", None, []),
    ]


def test_a_program_on_standard_input_has_no_script(tmp_path: Path) -> None:
    for arguments in (["-", "--x"], []):
        said = json.loads(run_python(*arguments, folder=tmp_path, given=SAY))
        assert (said["kind"], said["script"], said["stdin"]) == ("stdin", None, None)


def test_a_notebook_is_known_by_its_path_where_somebody_tells(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "ipykernel", sys)
    assert notebook() == ("notebook", None)
    monkeypatch.setenv("JPY_SESSION_NAME", "/books/a.ipynb1234-5678")
    assert notebook() == ("notebook", "/books/a.ipynb")
    monkeypatch.delenv("JPY_SESSION_NAME")
    main = sys.modules["__main__"]
    monkeypatch.setattr(main, "__vsc_ipynb_file__", "/books/b.ipynb", raising=False)
    assert notebook() == ("notebook", "/books/b.ipynb")
    assert describe()["notebook"] == "/books/b.ipynb"


def test_very_many_or_long_arguments_are_cut_with_a_word() -> None:
    said = describe(*["x" * 5000] * 100)
    assert said["arguments"][0] == "x" * 4000 + "… (cut)"
    assert said["arguments"][-1] == "… (91 more)"
    assert len(json.dumps(said)) < 100_000


def test_a_folder_that_is_gone_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()
    assert Start.now().folder is None


def test_the_machine_is_described() -> None:
    said = describe_host()
    assert said["name"]
    assert said["machine"] == platform.machine()
    assert 1 <= said["cpus_usable"] <= said["cpus"]
    assert said["memory_bytes"] > 1 << 20


def test_a_pod_is_known_by_its_name_and_namespace(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "kubernetes_pod" not in describe_host()
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("HOSTNAME", "train-0")
    monkeypatch.setenv("POD_NAMESPACE", "vision")
    said = describe_host()
    assert (said["kubernetes_pod"], said["kubernetes_namespace"]) == ("train-0", "vision")


def test_a_container_is_known_by_what_the_kernel_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = "0123456789abcdef" * 4
    other = "f" * 64
    cgroup, mounts = tmp_path / "cgroup", tmp_path / "mountinfo"
    cgroup.write_text("0::/\n")
    mounts.write_text(
        f"1 0 0:1 /volumes/{other} /data rw\n"
        f"2 0 0:1 /var/lib/docker/containers/{number}/hostname /etc/hostname rw\n"
    )
    monkeypatch.setattr(process, "CGROUP", str(cgroup))
    monkeypatch.setattr(process, "MOUNTS", str(mounts))
    assert describe_host()["container_id"] == number
    cgroup.write_text(f"12:cpu:/docker/{other}\n")
    assert describe_host()["container_id"] == other
    cgroup.unlink()
    mounts.write_text("")
    assert "container_id" not in describe_host()


def test_of_the_environment_only_what_matters_is_kept_and_no_secret(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in [name for name in os.environ if name not in {"PATH", "HOME"}]:
        monkeypatch.delenv(name)
    for name, text in {
        "SLURM_JOB_ID": "7",
        "SLURM_JWT": "hunter2",
        "RANK": "3",
        "TORCHELASTIC_RUN_ID": "none",
        "CUDA_VISIBLE_DEVICES": "0,1",
        "PYTHONPATH": "x" * 5000,
        "AWS_SECRET_ACCESS_KEY": "hunter2",
        "MY_OWN": "hunter2",
    }.items():
        monkeypatch.setenv(name, text)
    assert redactor(None).variables(Start.now().environment) == {
        "CUDA_VISIBLE_DEVICES": "0,1",
        "PYTHONPATH": "x" * 4000 + "… (cut)",
        "RANK": "3",
        "SLURM_JOB_ID": "7",
        "SLURM_JWT": "<redacted>",
        "TORCHELASTIC_RUN_ID": "none",
    }
    for number in range(999):
        monkeypatch.setenv(f"SLURM_{number}", "")
    assert len(Start.now().environment) == 500
