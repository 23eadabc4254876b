"""The process of the command line, also as `python -m runlake`."""

from __future__ import annotations

import atexit
import os
import sys
from importlib import import_module
from pathlib import Path


def run() -> None:
    """Run the command line; ends the process.

    Python takes a fifth of a second to take apart, object by object, the libraries that a
    question has loaded. A process that has done all else that it does at its end leaves that to
    the system.
    """
    codes: list[int] = []
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # as a shell's `>&-` leaves it
            nowhere = Path(os.devnull).open(mode, encoding="utf-8")  # noqa: SIM115 - stays open
            setattr(sys, name, nowhere)
    atexit.register(_leave, codes)  # called last, because it registers before all others
    try:
        import_module("runlake.cli").main()
    except SystemExit as ended:
        if isinstance(ended.code, int):
            codes.append(ended.code)
        raise


def _leave(codes: list[int]) -> None:
    """End the process as it is, unless something unforeseen has ended the command."""
    if codes:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(codes[0])


if __name__ == "__main__":
    run()
