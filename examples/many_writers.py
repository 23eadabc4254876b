"""Eight processes start at once on a lake that does not exist yet, and nothing is lost."""

from __future__ import annotations

import multiprocessing

import runlake

WRITERS = 8
RUNS_EACH = 3
STEPS = 200


def work(worker: int) -> None:
    """Log some runs; no process knows of the others."""
    with runlake.open("lake") as lake:
        for number in range(RUNS_EACH):
            with lake.start_run(f"worker-{worker}-{number}", experiment="crowd") as run:
                run.log_params({"worker": worker})
                for step in range(STEPS):
                    run.log({"value": worker + step / STEPS}, step=step)


def main() -> None:
    spawn = multiprocessing.get_context("spawn")
    workers = [spawn.Process(target=work, args=(worker,)) for worker in range(WRITERS)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()

    with runlake.open("lake", read_only=True) as lake:
        counts = lake.sql("""
            SELECT
                count(DISTINCT run_id) AS runs,
                count(*) AS points,
                count(DISTINCT writer) AS writers
            FROM metrics
        """)
        print(counts)
        lost = WRITERS * RUNS_EACH * STEPS - counts["points"].item()
        print(f"{lost} points are lost; the lake is sound: {lake.maintain.verify().is_sound}")


if __name__ == "__main__":
    main()
