"""Two models, a release that is checked, one that is refused, and the trail of both."""

from __future__ import annotations

import runlake
from runlake.errors import StateError

GOOD_ENOUGH = "metrics.acc > 0.9 and metrics.latency_ms.max < 20"


def train(lake: runlake.Lake, *, depth: int, acc: float, latency_ms: float) -> int:
    """Train a model, register it, and return its version."""
    with lake.start_run(f"depth {depth}", experiment="digits") as run:
        run.log_param("depth", depth)
        run.log_metric("acc", acc)
        for request in range(5):
            run.log_metric("latency_ms", latency_ms + request % 3, step=request)
        run.log_dict({"depth": depth}, "model/model.json")
    made = lake.registry.register_model(f"runs:/{run.run_id}/model", "digits")
    return made.version


def release(lake: runlake.Lake, version: int) -> None:
    """Let `champion` mean this version, if its run was good enough."""
    try:
        lake.registry.promote("digits", version, "champion", require=GOOD_ENOUGH, reason="nightly")
    except StateError as refused:
        print(refused)


def main() -> None:
    with runlake.open("lake") as lake:
        for depth, acc, latency_ms in ((3, 0.92, 8.0), (30, 0.97, 80.0), (5, 0.94, 11.0)):
            release(lake, train(lake, depth=depth, acc=acc, latency_ms=latency_ms))

        # The new one is bad at something that nobody measured: back to the one before.
        lake.registry.set_registered_model_alias("digits", "champion", 1, reason="fails on 7s")

        print(lake.registry.download("models:/digits@champion", target="deployed"))
        print(
            lake.sql("""
                SELECT version, kind, key, value, reason FROM registry_events
                WHERE key = 'champion' ORDER BY "at"
            """)
        )


if __name__ == "__main__":
    main()
