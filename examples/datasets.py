"""Find the runs that trained on the same data, whatever library held them."""

from __future__ import annotations

import numpy as np
import polars as pl
import pyarrow as pa

import runlake


def main() -> None:
    generator = np.random.default_rng(7)
    frame = pl.DataFrame({"x": generator.normal(size=1000), "y": generator.integers(0, 2, 1000)})
    frame.write_parquet("train.parquet")

    with runlake.open("lake") as lake:
        # The same values have the same digest from Polars and Arrow, as int64 and int8.
        narrow = frame.to_arrow().set_column(1, "y", frame["y"].cast(pl.Int8).to_arrow())
        for name, data in (("polars", frame), ("arrow", narrow), ("less", frame.head(900))):
            with lake.start_run(name, experiment="data sets") as run:
                train = runlake.Dataset.of(data, "coins", source="train.parquet", targets="y")
                run.log_input(train, "training")
                run.log_input({"x": np.zeros((10, 3)), "y": np.zeros(10)}, "validation")
                run.log({"loss": 1 / len(data)})

        same = runlake.Dataset.of(pa.table(frame), "coins")
        found = lake.search_runs(f"dataset.digest = '{same.digest}'")
        print("trained on the same data:", sorted(found["run_name"]))

        print(
            lake.sql("""
                SELECT run_name, name, context, digest, profile ->> '$.rows' AS rows, schema
                FROM inputs
                JOIN runs USING (run_id)
                ORDER BY ALL
            """)
        )


if __name__ == "__main__":
    main()
