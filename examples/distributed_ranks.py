"""All ranks of a distributed job write to one run: each just starts it by the same id.

A launcher such as torchrun sets RANK and WORLD_SIZE; here the parent process plays it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import uuid

import runlake

RANKS = 4
STEPS = 50


def train() -> None:
    """Do what each rank does."""
    rank = int(os.environ["RANK"])
    with runlake.start_run(run_id=os.environ["JOB_RUN_ID"], run_name="ddp") as run:
        run.log_params({"world_size": int(os.environ["WORLD_SIZE"])})
        for step in range(STEPS):
            run.log({f"rank-{rank}/seconds": 0.1 + rank / 100}, step=step)
            if rank == 0:
                run.log({"loss": 1 / (step + 1)}, step=step)


def main() -> None:
    job = {"JOB_RUN_ID": uuid.uuid4().hex, "WORLD_SIZE": str(RANKS)}
    ranks = [
        subprocess.Popen(  # noqa: S603 - this very script
            [sys.executable, __file__, "rank"], env=os.environ | job | {"RANK": str(rank)}
        )
        for rank in range(RANKS)
    ]
    print("ranks ended with", [rank.wait() for rank in ranks])

    with runlake.open("lake", read_only=True) as lake:
        print(lake.sql("SELECT run_name, status, params['world_size'] AS ranks FROM runs"))
        print(
            lake.sql("""
                SELECT key, count(*) AS points, count(DISTINCT writer) AS writers
                FROM metrics
                GROUP BY key
                ORDER BY key
            """)
        )


if __name__ == "__main__":
    train() if sys.argv[1:] == ["rank"] else main()
