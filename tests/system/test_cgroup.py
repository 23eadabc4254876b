from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from runlake.system.cgroup import Cgroup, Memory, Quota

if TYPE_CHECKING:
    from pathlib import Path


def write(folder: Path, **files: str) -> None:
    """Write the files of a group; `__` stands for a dot."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


def find(tmp_path: Path, listed: str) -> Cgroup:
    """Return the groups of a process that the kernel lists so."""
    (tmp_path / "listed").write_text(listed)
    return Cgroup.of_this_process(tmp_path / "listed", tmp_path / "mount")


def test_a_quota_of_version_2_is_read_where_it_is_least(tmp_path: Path) -> None:
    mount = tmp_path / "mount"
    write(mount, cpu__stat="usage_usec 9000000\n")
    write(mount / "job", cpu__max="150000 100000\n", cpu__stat="usage_usec 5000000\n")
    write(mount / "job/step", cpu__max="max 100000\n", cpu__stat="usage_usec 1\nuser_usec 1\n")
    assert find(tmp_path, "0::/job/step\n").quota() == Quota(1.5, 5.0)


def test_a_limit_of_version_2_counts_use_without_the_cache_that_can_go(tmp_path: Path) -> None:
    write(
        tmp_path / "mount/job",
        memory__max="4000\n",
        memory__current="3000\n",
        memory__stat="anon 1\ninactive_file 1200\n",
    )
    assert find(tmp_path, "0::/job\n").memory_limit() == Memory(4000, 1800)


@pytest.mark.parametrize("together", ["cpu,cpuacct", "cpu"])
def test_a_quota_of_version_1_is_read_wherever_the_controllers_are_mounted(
    tmp_path: Path, together: str
) -> None:
    mount = tmp_path / "mount"
    account = together if "," in together else "cpuacct"
    write(mount / together / "job", cpu__cfs_quota_us="50000\n", cpu__cfs_period_us="100000\n")
    write(mount / account / "job", cpuacct__usage="7000000000\n")
    listed = "3:cpu,cpuacct:/job\n" if "," in together else "3:cpu:/job\n2:cpuacct:/job\n"
    assert find(tmp_path, listed).quota() == Quota(0.5, 7.0)


def test_in_a_container_of_version_1_the_root_stands_for_the_group(tmp_path: Path) -> None:
    write(
        tmp_path / "mount/memory",
        memory__limit_in_bytes="5000\n",
        memory__usage_in_bytes="900\n",
        memory__stat="total_inactive_file 100\n",
    )
    assert find(tmp_path, "4:memory:/docker/abc\n").memory_limit() == Memory(5000, 800)


def test_no_limit_is_none(tmp_path: Path) -> None:
    mount = tmp_path / "mount"
    write(mount, cpu__max="max 100000\n", memory__max="max\n", memory__current="1\n")
    write(mount / "cpu", cpu__cfs_quota_us="-1\n", cpu__cfs_period_us="100000\n")
    write(
        mount / "memory",
        memory__limit_in_bytes="9223372036854771712\n",
        memory__usage_in_bytes="1\n",
    )
    found = find(tmp_path, "4:memory:/\n3:cpu:/\n0::/\n1:name=systemd:/user\n")
    assert (found.quota(), found.memory_limit()) == (None, None)


def test_a_machine_without_groups_has_no_limit(tmp_path: Path) -> None:
    found = Cgroup.of_this_process(tmp_path / "no file", tmp_path)
    assert (found.quota(), found.memory_limit()) == (None, None)
