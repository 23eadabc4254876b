"""What a run shows: images and distributions by step, a table of answers, a page."""

import numpy as np

import runlake

runlake.set_tracking_uri("lake")
runlake.set_experiment("media")
chance = np.random.default_rng(0)
digits = np.linspace(0, 1, 28 * 28).reshape(28, 28)

for noise in (0.1, 0.3):
    with runlake.start_run(run_name=f"noise-{noise}") as run:
        runlake.log_param("noise", noise)
        for step in range(3):
            shown = np.clip(digits + chance.normal(0, noise, digits.shape), 0, 1)
            runlake.log_image(shown, key="digits", step=step)
            runlake.log_histogram("errors", shown - digits, step=step)
            rows = [{"digit": n, "sure": float(1 - noise * chance.random())} for n in range(3)]
            runlake.log_table(rows, "answers", step=step)
        run.log_html(f"<h1>Noise {noise}</h1>", "report.html")

answers = runlake.load_table("answers", extra_columns=["params.noise"])
print(answers.group_by("params.noise", "step").mean().sort("params.noise", "step"))

lake = runlake.open("lake")
print(lake.sql("SELECT media, key, count(*) AS n FROM media GROUP BY ALL ORDER BY ALL"))
print(
    lake.sql("""
        SELECT run_name, step, round(edges[1], 2) AS least, round(edges[-1], 2) AS greatest
        FROM histograms JOIN runs USING (run_id)
        ORDER BY ALL
    """)
)
