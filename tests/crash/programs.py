"""Programs as users write them, run to their end in a process of their own."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

# What every program begins with.
_PROLOGUE = """
import os
import sys

import runlake

lake = runlake.open(sys.argv[1])
"""


def run_program(
    lake_path: str, text: str, *, expect: int = 0, environment: Mapping[str, str] | None = None
) -> str:
    """Run a program over a lake that is open as `lake`; return what it wrote, errors behind.

    Args:
        lake_path: the lake.
        text: the program, behind a prologue.
        expect: the exit status; 130 stands for the end by Ctrl-C, which CPython shows as the
            signal, as 130, or as 1 where code was compiled while the process ended.
        environment: the whole environment; None is this process's own.
    """
    program = _PROLOGUE + textwrap.dedent(text)
    done = subprocess.run(
        [sys.executable, "-c", program, lake_path],
        capture_output=True,
        check=False,
        text=True,
        timeout=50,
        env=None if environment is None else dict(environment),
    )
    allowed = {130, -signal.SIGINT, 1} if expect == 130 else {expect}
    assert done.returncode in allowed, done.stderr
    return done.stdout + done.stderr
