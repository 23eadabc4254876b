"""Train scikit-learn models epoch by epoch, keep the best as an artifact, and load it again."""

from __future__ import annotations

import pickle
from pathlib import Path
from tempfile import TemporaryDirectory

from sklearn.datasets import load_digits
from sklearn.linear_model import SGDClassifier
from sklearn.metrics import confusion_matrix, log_loss
from sklearn.model_selection import train_test_split

import runlake

EPOCHS = 15


def main() -> None:
    images, labels = load_digits(return_X_y=True)
    train_x, val_x, train_y, val_y = train_test_split(images / 16, labels, random_state=0)
    lake = runlake.open("lake")
    for alpha in (1e-2, 1e-3, 1e-4):
        model = SGDClassifier(loss="log_loss", alpha=alpha, random_state=0)
        with lake.start_run(f"alpha-{alpha:g}", experiment="digits") as run:
            run.log_params(model.get_params())
            for _ in range(EPOCHS):
                model.partial_fit(train_x, train_y, classes=range(10))
                guessed = model.predict_proba(val_x)
                run.log(
                    {
                        "val/accuracy": model.score(val_x, val_y),
                        "val/loss": log_loss(val_y, guessed),
                    }
                )
            table = confusion_matrix(val_y, model.predict(val_x))
            run.log_dict({"counts": table}, "confusion.json")
            with TemporaryDirectory() as folder:
                file = Path(folder, "model.pkl")
                file.write_bytes(pickle.dumps(model))
                run.log_artifact(file)

    board = lake.leaderboard("val/accuracy")
    print(board.select("rank", "run_name", "value", "step"))
    fetched = lake.artifacts.download(board["run_id"][0], "model.pkl", target="best")
    best = pickle.loads(fetched.read_bytes())  # noqa: S301 - our own file
    print("the best, loaded again:", best.score(val_x, val_y))
    lake.close()


if __name__ == "__main__":
    main()
