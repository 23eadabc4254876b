"""Eight processes that register versions, move aliases and rename at the same moment."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from runlake.lake import open_lake

if TYPE_CHECKING:
    from pathlib import Path

PROCESSES = 8
EACH = 4
PROGRAM = """
import json, sys
import runlake
from runlake.errors import RunlakeError

lake = runlake.open(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
me, each = sys.argv[2], int(sys.argv[3])
given = []
for turn in range(each):
    made = lake.registry.register_model(f"s3://{me}/{turn}", "digits", reason=f"{me} {turn}")
    given.append(made.version)
    lake.registry.set_registered_model_alias(
        "digits", "champion", made.version, reason=f"alias {me} {turn}"
    )
try:
    lake.registry.create_registered_model("one of us", reason=f"only {me}")
    is_first = True
except RunlakeError:
    is_first = False
print(json.dumps([given, is_first]), flush=True)
lake.close()
"""


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_processes_that_register_at_once_get_numbers_without_gaps_or_doubles(
    tmp_path: Path,
) -> None:
    url = str(tmp_path / "lake")
    crowd = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, url, str(number), str(EACH)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(PROCESSES)
    ]
    for process in crowd:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in crowd:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    told = [json.loads(process.communicate()[0]) for process in crowd]
    assert [process.returncode for process in crowd] == [0] * PROCESSES
    numbers = [number for given, _ in told for number in given]
    assert sorted(numbers) == list(range(1, PROCESSES * EACH + 1))
    assert [is_first for _, is_first in told].count(True) == 1
    with open_lake(url) as lake:
        versions = lake.registry.search_model_versions(order_by=["version_number DESC"])
        assert [each.version for each in versions] == sorted(numbers, reverse=True)
        sources = {each.version: each.source for each in versions}
        for me, (given, _) in enumerate(told):
            assert [sources[number] for number in given] == [
                f"s3://{me}/{turn}" for turn in range(EACH)
            ]
        trail = lake.sql("FROM registry_events").to_dicts()
        kinds = Counter(row["kind"] for row in trail)
        assert kinds["registry_version_create"] == PROCESSES * EACH
        aliases = [row for row in trail if row["kind"] == "registry_alias"]
        assert len(aliases) == len({row["reason"] for row in aliases}) == PROCESSES * EACH
        champion = lake.registry.get_model_version_by_alias("digits", "champion")
        assert champion.version == aliases[-1]["version"]
