from __future__ import annotations

import asyncio
import subprocess
import sys
import threading

import pytest

from runlake.storage import ioloop


def test_run_returns_what_the_coroutine_returns_on_the_one_loop() -> None:
    async def where() -> tuple[asyncio.AbstractEventLoop, str]:
        return asyncio.get_running_loop(), threading.current_thread().name

    loop, name = ioloop.run(where())
    assert loop is ioloop.start()
    assert name == "runlake-io"
    assert ioloop.run(where())[0] is loop


def test_run_raises_what_the_coroutine_raises() -> None:
    async def fail() -> None:
        raise TimeoutError("its own")

    with pytest.raises(TimeoutError, match="its own"):
        ioloop.run(fail())


def test_shared_makes_one_for_each_name() -> None:
    made: list[str] = []

    def make() -> list[str]:
        made.append("x")
        return made

    name = object()
    assert ioloop.shared(name, make) is ioloop.shared(name, make)
    assert made == ["x"]


def test_shared_that_fails_is_made_again() -> None:
    name = object()
    with pytest.raises(ZeroDivisionError):
        ioloop.shared(name, lambda: 1 // 0)
    assert ioloop.shared(name, lambda: 7) == 7


def test_calls_for_threads_still_run_while_the_process_ends() -> None:
    script = """
import asyncio, atexit
from runlake.storage import ioloop
ioloop.start()
async def look_up():
    return await asyncio.get_running_loop().getaddrinfo("localhost", 80)
@atexit.register
def late():
    print(bool(ioloop.run(look_up())), flush=True)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.stdout, done.stderr) == ("True\n", "")
