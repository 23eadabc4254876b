"""Scripts of calls for two clients, drawn by a seed: what people do, and what they get wrong."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from tests.parity.clients import BEGAN_MS, Call, Id, Made, Text

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence

LONG: Final = "x" * 251
EXPERIMENTS: Final = ("digits", "Digits", "a b", "größe", "50%", "a_c")
BAD_NAMES: Final = ("", " ", "é" * 501, None)
KEYS: Final = ("loss", "val/acc", "a b", "f1-score", "größe")
BAD_KEYS: Final = ("", "a//b", "../b", "/a", "a@b", "k=v", ".", LONG, None)
PARAMS: Final = ("lr", "C", "a b", "depth/x", "layers", "größe", "opt.name", "seed")
TEXTS: Final = ("0.1", "10", "9", "rbf", "RBF", "it's", 'say "hi"', "", "100%", "größe", "🙂")
TAGS: Final = ("team", "a b", "mlflow.note.content", "mlflow.source.name", "größe")
STATUSES: Final = ("RUNNING", "SCHEDULED", "FINISHED", "FAILED", "KILLED")
VALUES: Final = (0.5, -1.0, 0.0, 1e300, math.nan, 3, True, -2.5, 0.3)
MODELS: Final = ("digits", "letters", "a%c", "Größe", "x y")
ALIASES: Final = ("champion", "challenger", "b-1")
STAGES: Final = ("None", "Staging", "Production", "Archived", "production")
VIEWS: Final = (1, 2, 3)
# Runs are restored by themselves in these experiments only, which are not deleted: in one that is
# a lake answers otherwise on purpose.
KEPT: Final = (-1, 0, 1)

RUN_FILTERS: Final = (
    "", "metrics.loss > 0", "metrics.loss <= 0.5 and params.lr = '0.1'", "metrics.`a b` != 0.5",
    "params.lr != '10'", "params.C LIKE '1%'", "params.C ILIKE 'RB%'", "tags.team = 'rbf'",
    "tags.team IS NULL", "params.lr IS NOT NULL", "tags.`mlflow.note.content` LIKE '%i%'",
    "attributes.status = 'FINISHED'", "status != 'RUNNING'", "run_name LIKE 'run%'",
    "attributes.run_name = 'run 3'", "tags.`mlflow.runName` = 'run 3'", "user_id != 'nobody'",
    f"start_time > {BEGAN_MS + 2000}", f"attribute.end_time <= {BEGAN_MS + 9000}",
    f"created < {BEGAN_MS + 5000} AND metrics.loss > -5", "datasets.name = 'digits'",
    "dataset.context = 'train'", "dataset.digest IN ('d1', 'd2')", "datasets.name LIKE 'w%'",
    # These are wrong.
    "metrics.loss > 'a'", "params.lr = 0.1", "loss > 1", "tags.team = 'a' OR tags.team = 'b'",
    "status IN ('FINISHED')", "nothing.a = 'b'", "metrics.loss", "duration > 5",
)  # fmt: skip
RUN_ORDERS: Final[tuple[list[str], ...]] = (
    [], ["start_time"], ["attributes.start_time DESC"], ["metrics.loss", "start_time"],
    ["metrics.loss DESC", "start_time"], ["params.lr ASC", "start_time"], ["tags.team DESC"],
    ["attributes.end_time DESC"], ["status", "run_name DESC"], ["metrics.`a b`"], ["run_id"],
    ["params.C desc", "metrics.`val/acc` asc"],
    # These are wrong.
    ["loss"], ["start_time", "start_time DESC"], ["metrics.loss DOWN"], ["datasets.name"],
)  # fmt: skip
EXPERIMENT_FILTERS: Final = (
    "", "name = 'digits'", "name LIKE 'd%'", "name ILIKE 'D%'", "tags.team = 'rbf'",
    "tags.team != 'rbf'", "tags.team LIKE 'r%'", "tags.`a b` ILIKE '%I%'", "tags.team IS NULL",
    "attribute.name != 'digits'", f"creation_time > {BEGAN_MS + 3000}",
    f"last_update_time <= {BEGAN_MS + 9000}", "tags.`a b` IS NOT NULL AND name LIKE '%i%'",
    # These are wrong.
    "name > 'a'", "nothing = 'a'", "name = digits", "name = 'a' OR name = 'b'",
)  # fmt: skip
EXPERIMENT_ORDERS: Final = (
    None, ["name"], ["name DESC"], ["creation_time"], ["last_update_time ASC", "name"],
    ["experiment_id DESC"], ["tags.team"], ["nothing"],
)  # fmt: skip
MODEL_FILTERS: Final = (
    None, "name = 'net'", "name LIKE 'n%'", "status = '2'", "model_type = 'agent'",
    "metrics.loss > 0", "params.lr = '0.1'", "tags.team != 'rbf'", "params.C IN ('10', '9')",
    "model_type IN ('agent') AND name != 'net'", f"creation_time > {BEGAN_MS + 2000}",
    "attributes.name ILIKE 'NE%'", "source_run_id != 'none'",
    # These are wrong.
    "name > 'a'", "nothing = 'a'", "metrics.loss = 'a'",
)  # fmt: skip
MODEL_ORDERS: Final = (
    None, [{"field_name": "name"}, {"field_name": "creation_time"}],
    [{"field_name": "creation_time", "ascending": True}],
    [{"field_name": "metrics.loss", "ascending": True}],
    [{"field_name": "metrics.loss", "dataset_name": "digits", "dataset_digest": "d1"}],
    [{"field_name": "nothing"}], [{"ascending": True}],
)  # fmt: skip
REGISTRY_FILTERS: Final = (
    "", "name = 'digits'", "name LIKE 'd%'", "name ILIKE 'GR%'", "tags.team = 'rbf'",
    "tags.`a b` LIKE '%i%'", "name != 'letters'", "name > 'a'", "nothing = 'a'", "name = digits",
)  # fmt: skip
VERSION_FILTERS: Final = (
    *REGISTRY_FILTERS, "version_number > 1", "source_path LIKE 's3://%'",
    "name IN ('digits', 'letters')", "version_number = 'a'",
)  # fmt: skip


class Author:
    """Writes one script; what it has made it goes on with."""

    def __init__(self, chance: random.Random) -> None:
        """Begin with nothing."""
        self._chance = chance
        self._made = {"experiment": 1, "run": 0, "model": 0}
        self._home: dict[Id, Id] = {}
        self._time = BEGAN_MS
        deeds: dict[Callable[[], Call], int] = {
            self._create_experiment: 3,
            self._change_experiment: 3,
            self._create_run: 6,
            self._change_run: 5,
            self._log_one: 10,
            self._log_batch: 8,
            self._log_input: 3,
            self._create_model: 3,
            self._change_model: 6,
            self._ask: 10,
            self._search: 10,
            self._create_registered: 4,
            self._change_registered: 8,
            self._ask_registered: 4,
        }
        self._deeds, self._weights = list(deeds), list(deeds.values())

    def write(self, count: int) -> list[Call]:
        """Return so many calls; the first make what the others need."""
        # MLflow's store has the default experiment from the beginning, a lake from its first use.
        default = {"experiment_id": Id("experiment", 0), "start_time": self._when()}
        calls = [Call("create_run", {**default, "run_name": "run 0"}, self._new("run"))]
        first = [self._create_experiment, self._create_run, self._create_run]
        calls += [deed() for deed in first * 2]
        for name in ("net", "tree"):
            given = {"experiment_id": Id("experiment", 0), "name": name, "params": {"lr": "10"}}
            calls.append(Call("create_logged_model", given, self._new("model")))
        for name in MODELS[:3]:
            calls.append(Call("create_registered_model", {"name": name}))
            given = {"name": name, "source": "s3://models/0", "run_id": Id("run", 0)}
            calls += [Call("create_model_version", given)] * 2
        return calls + [self._next() for _ in range(count - len(calls))]

    def _next(self) -> Call:
        (deed,) = self._chance.choices(self._deeds, self._weights)
        return deed()

    # Choosing.

    def _one(self, known: Sequence[Any], wrong: Sequence[Any] = (), *, odds: float = 0.07) -> Any:  # noqa: ANN401 - any argument
        chosen = wrong if wrong and self._chance.random() < odds else known
        return self._chance.choice(chosen)

    def _id(self, kind: str) -> Id:
        """Return one that was made, the newer the likelier; seldom one that was not."""
        made = self._made[kind]
        if not made or self._chance.random() < 0.04:
            return Id(kind, -1)
        return Id(kind, made - 1 - min(int(self._chance.expovariate(0.2)), made - 1))

    def _new(self, kind: str) -> Id:
        self._made[kind] += 1
        return Id(kind, self._made[kind] - 1)

    def _when(self) -> int:
        """Return a time that no other call has."""
        self._time += self._chance.randint(1, 400)
        return self._time

    def _tags(self, most: int = 2) -> dict[str, str]:
        keys = self._chance.sample(TAGS, self._chance.randint(0, most))
        return {key: self._one(TEXTS) for key in keys}

    # Experiments.

    def _create_experiment(self) -> Call:
        number = self._made["experiment"]
        taken = self._one(EXPERIMENTS)
        name = EXPERIMENTS[number] if number < len(EXPERIMENTS) else f"{taken} {number}"
        given = {
            "name": self._one([name], [*BAD_NAMES, taken], odds=0.2) if number > 2 else name,
            "tags": self._one([None, self._tags()]),
            "artifact_location": self._one([None, None, "s3://bucket/place"], ["s3://b/x?y=%2e#z"]),
        }
        return Call("create_experiment", given, self._new("experiment"))

    def _change_experiment(self) -> Call:
        given: dict[str, Any] = {"experiment_id": self._id("experiment")}
        deeds = ["restore", "restore", "rename", "tag", "tag", "untag"]
        deed = self._one(deeds, ["delete"], odds=0.2)
        if deed in {"delete", "restore"} and given["experiment_id"].number in KEPT:
            deed = "tag"
        if deed == "rename":
            name = self._one([*EXPERIMENTS, "renamed"], BAD_NAMES)
            return Call("rename_experiment", {**given, "new_name": name})
        if deed == "tag":
            pair = {"key": self._one(TAGS, BAD_KEYS), "value": self._one(TEXTS, ["v" * 5001])}
            return Call("set_experiment_tag", {**given, **pair})
        if deed == "untag":
            return Call("delete_experiment_tag", {**given, "key": self._one(TAGS)})
        return Call(f"{deed}_experiment", given)

    # Runs.

    def _create_run(self) -> Call:
        parent = {"mlflow.parentRunId": self._id("run")} if self._made["run"] > 2 else {}
        tags: dict[str, Any] = {**self._tags(), **self._one([{}, {}, parent])}
        number, home = self._made["run"], self._id("experiment")
        if self._chance.random() < 0.1:
            tags["mlflow.runName"] = self._one([f"run {number}", "another"])
        given = {
            "experiment_id": home,
            "start_time": self._when(),
            "tags": tags or None,
            "run_name": f"run {number}",
        }
        made = self._new("run")
        self._home[made] = home
        return Call("create_run", given, made)

    def _change_run(self) -> Call:
        given: dict[str, Any] = {"run_id": self._id("run")}
        deed = self._one(["terminate", "update", "update", "restore"], ["delete"], odds=0.25)
        home = self._home.get(given["run_id"], Id("experiment", 0))
        if deed == "restore" and home.number not in KEPT:
            deed = "update"
        if deed == "terminate":
            status = self._one([None, *STATUSES])
            return Call("set_terminated", {**given, "status": status, "end_time": self._when()})
        if deed == "update":
            change = self._one(
                [
                    {"status": self._one(STATUSES)},
                    {"name": self._one(["renamed", "run 3", "größe"], [""])},
                    {"status": "FAILED", "name": "both"},
                ]
            )
            return Call("update_run", {**given, **change})
        return Call(f"{deed}_run", given)

    def _log_one(self) -> Call:
        given: dict[str, Any] = {"run_id": self._id("run")}
        deed = self._one(["metric", "metric", "param", "tag", "untag"])
        if deed == "metric":
            point = {
                "key": self._one(KEYS, BAD_KEYS),
                "value": self._one(VALUES, ["abc", None, "1.5"]),
                "timestamp": self._when(),
                "step": self._one([0, 1, 2, 5, -3], [2**40]),
            }
            return Call("log_metric", {**given, **point})
        if deed == "param":
            pair = {"key": self._one(PARAMS, BAD_KEYS), "value": self._one([*TEXTS, 0.5, None])}
            return Call("log_param", {**given, **pair})
        if deed == "tag":
            keys = [*TAGS, "mlflow.runName", "mlflow.user"]
            pair = {"key": self._one(keys, BAD_KEYS), "value": self._one([*TEXTS, 7])}
            return Call("set_tag", {**given, **pair})
        return Call("delete_tag", {**given, "key": self._one(TAGS, ["mlflow.user"])})

    def _metric(self, *of_model: Any) -> Made:  # noqa: ANN401 - model, data set, digest
        # A model's NaN is 0 in MLflow's store.
        values = [value for value in VALUES if not math.isnan(value)] if of_model else VALUES
        fields = (self._one(KEYS, ["a@b"], odds=0.02), self._one(values), self._when())
        return Made("Metric", (*fields, self._one([0, 0, 1, 7]), *of_model))

    def _log_batch(self) -> Call:
        most = self._one([1, 3, 8], [40])
        metrics = [self._metric() for _ in range(self._chance.randint(0, most))]
        # Points of one key, step and time: the greatest value is the last.
        if metrics and self._chance.random() < 0.3:
            key, _, time, step = metrics[0].fields
            metrics += [Made("Metric", (key, value, time, step)) for value in (0.25, 4.0, 0.25)]
        names = self._chance.sample(PARAMS, self._chance.randint(0, 2))
        params = [Made("Param", (key, str(self._one(TEXTS)))) for key in names]
        if params and self._chance.random() < 0.1:
            params.append(Made("Param", (names[0], "another")))
        tags = [Made("RunTag", pair) for pair in self._tags(1).items()]
        given = {"metrics": metrics, "params": params, "tags": tags}
        return Call("log_batch", {"run_id": self._id("run"), **given})

    def _log_input(self) -> Call:
        given: dict[str, Any] = {"run_id": self._id("run")}
        if self._made["model"] and self._chance.random() < 0.4:
            model = self._id("model")
            if self._chance.random() < 0.5:
                return Call("log_inputs", {**given, "models": [Made("LoggedModelInput", (model,))]})
            output = Made("LoggedModelOutput", (model, self._one([0, 3])))
            return Call("log_outputs", {**given, "models": [output]})
        datasets = []
        for name in self._chance.sample(["digits", "wine", "größe"], self._chance.randint(1, 2)):
            digest = self._one(["d1", "d2"], ["d" * 40])
            schema = '{"a": 1}' if digest == "d1" else None
            fields = (name, digest, "local", f"/data/{name}", schema, None)
            context = self._one([None, "train", "eval"])
            tags = [Made("InputTag", ("mlflow.data.context", context))] if context else []
            datasets.append(Made("DatasetInput", (Made("Dataset", fields), tags)))
        return Call("log_inputs", {**given, "datasets": datasets})

    # Logged models.

    def _create_model(self) -> Call:
        given = {
            "experiment_id": self._id("experiment"),
            "name": self._one(["net", "NET", "tree"], ["", "a/b", "a:b"]),
            "source_run_id": self._one([None, self._id("run")]),
            "tags": self._one([None, self._tags()]),
            "params": self._one([None, {"lr": self._one(TEXTS), "C": "10"}]),
            "model_type": self._one([None, "agent", "net"]),
        }
        return Call("create_logged_model", given, self._new("model"))

    def _change_model(self) -> Call:
        given: dict[str, Any] = {"model_id": self._id("model")}
        match self._one(["finish", "tag", "untag", "params", "metric"], ["delete"], odds=0.1):
            case "finish":
                status = self._one(["READY", "READY", "FAILED"])
                return Call("finalize_logged_model", {**given, "status": status})
            case "tag":
                return Call("set_logged_model_tags", {**given, "tags": self._tags() or {"t": "1"}})
            case "untag":
                return Call("delete_logged_model_tag", {**given, "key": self._one(TAGS)})
            case "params":
                params = {self._one(["lr", "extra", "depth"]): self._one(TEXTS)}
                return Call("log_model_params", {**given, "params": params})
            case "delete":
                return Call("delete_logged_model", given)
        # Of a model that is not there MLflow keeps the points in the run, and then refuses them.
        model = Id("model", self._one([0, 1]))
        of = (model, *self._one([(None, None), ("digits", "d1"), ("wine", "d2")]))
        metrics = [self._metric(*of)]
        return Call("log_batch", {"run_id": self._id("run"), "metrics": metrics})

    # The registry.

    def _create_registered(self) -> Call:
        name = self._one(MODELS, ["", "a/b", "a:b", None], odds=0.1)
        text = self._one([None, "", "what it is"])
        if self._chance.random() < 0.4:
            tags = self._one([None, self._tags()])
            about = {"tags": tags, "description": text}
            return Call("create_registered_model", {"name": name, **about})
        given = {
            "name": name,
            "source": self._one(["s3://models/1", "s3://models/2"], ["runs:/x/../../y"]),
            "run_id": self._one([None, self._id("run")]),
            "tags": self._one([None, self._tags()]),
            "description": text,
        }
        return Call("create_model_version", given)

    def _change_registered(self) -> Call:
        name = self._one(MODELS, ["nothing"])
        version = str(self._one([1, 1, 2, 3, 4], ["x", "0", "-1"]))
        of: dict[str, Any] = {"name": name, "version": version}
        key, value = self._one(TAGS, ["", LONG]), self._one([*TEXTS, 7])
        alias = self._one(ALIASES, ["latest", "v1", "a b", ""])
        others = [each for each in MODELS if each != name]
        stage = self._one(STAGES, ["best"])
        deeds: list[tuple[str, dict[str, Any]]] = [
            ("set_registered_model_tag", {"name": name, "key": key, "value": value}),
            ("delete_registered_model_tag", {"name": name, "key": key}),
            ("set_model_version_tag", {**of, "key": key, "value": value}),
            ("set_model_version_tag", {"name": name, "stage": stage, "key": key, "value": value}),
            ("delete_model_version_tag", {**of, "key": key}),
            ("set_registered_model_alias", {**of, "alias": alias}),
            ("set_registered_model_alias", {**of, "alias": alias}),
            ("delete_registered_model_alias", {"name": name, "alias": alias}),
            ("update_registered_model", {"name": name, "description": self._one(TEXTS)}),
            ("update_model_version", {**of, "description": self._one(TEXTS)}),
            ("transition_model_version_stage", {**of, "stage": stage}),
            ("transition_model_version_stage",
             {**of, "stage": stage, "archive_existing_versions": True}),
            ("delete_model_version", of),
            ("copy_model_version",
             {"src_model_uri": f"models:/{name}/{version}", "dst_name": self._one(MODELS)}),
            ("rename_registered_model", {"name": name, "new_name": self._one(others, ["a/b"])}),
            ("delete_registered_model", {"name": self._one(MODELS)}),
        ]  # fmt: skip
        return Call(*self._one(deeds[:-2] * 3 + deeds[-2:]))

    def _ask_registered(self) -> Call:
        name = self._one(MODELS, ["nothing"])
        version = str(self._one([1, 2, 3], ["x"]))
        return Call(
            *self._one(
                [
                    ("get_registered_model", {"name": name}),
                    ("get_model_version", {"name": name, "version": version}),
                    ("get_model_version_by_alias", {"name": name, "alias": self._one(ALIASES)}),
                    ("get_latest_versions", {"name": name, "stages": None}),
                    ("get_latest_versions", {"name": name, "stages": [self._one(STAGES)]}),
                    ("get_model_version_download_uri", {"name": name, "version": version}),
                    ("get_model_version_stages", {"name": name, "version": version}),
                ]
            )
        )

    # Asking.

    def _ask(self) -> Call:
        run, key = self._id("run"), self._one(KEYS)
        experiments = [self._id("experiment"), Id("experiment", 0)]
        several = {"run_ids": [run, self._id("run")], "metric_key": key}
        steps = self._one([(None, None), (0, 5), (-3, 1)], [(None, 3)])
        interval = {"max_results": 3, "start_step": steps[0], "end_step": steps[1]}
        return Call(
            *self._one(
                [
                    ("get_run", {"run_id": run}),
                    ("get_run", {"run_id": run}),
                    ("get_metric_history", {"run_id": run, "key": key}),
                    ("get_metric_history", {"run_id": run, "key": key}),
                    ("get_parent_run", {"run_id": run}),
                    ("get_experiment", {"experiment_id": self._id("experiment")}),
                    ("get_experiment_by_name", {"name": self._one(EXPERIMENTS)}),
                    ("get_logged_model", {"model_id": self._id("model")}),
                    ("store.get_metric_history_bulk", {**several, "max_results": 5}),
                    ("store.get_metric_history_bulk_interval", {**several, **interval}),
                    ("store._search_datasets", {"experiment_ids": experiments}),
                ]
            )
        )

    def _search(self) -> Call:
        experiments = [Id("experiment", number) for number in range(self._made["experiment"])]
        among = self._chance.sample(experiments, self._chance.randint(0, len(experiments)))
        size = {"max_results": self._one([1, 3, 1000], [0, -1, 50_001, 10**7])}
        view = {"view_type": self._one(VIEWS)}
        runs = {"experiment_ids": among, "run_view_type": view["view_type"], **size}
        form = self._one(["run_id = '{}'", "run_id IN ('{}', '{}')", "attributes.run_id != '{}'"])
        ids = tuple(self._id("run") for _ in range(form.count("{}")))
        by_id = {"filter_string": Text(form, ids), "order_by": ["start_time"]}
        asked = {"filter_string": self._one(RUN_FILTERS), "order_by": self._one(RUN_ORDERS)}
        return Call(
            *self._one(
                [
                    *[("search_runs", {**runs, **asked})] * 5,
                    ("search_runs", {**runs, **by_id}),
                    ("search_experiments", {
                        **view, **size, "filter_string": self._one(EXPERIMENT_FILTERS),
                        "order_by": self._one(EXPERIMENT_ORDERS),
                    }),
                    ("search_logged_models", {
                        "experiment_ids": among, **size,
                        "filter_string": self._one(MODEL_FILTERS),
                        "order_by": self._one(MODEL_ORDERS),
                        "datasets": self._one([None, None, [{"dataset_name": "digits"}], [{}]]),
                    }),
                    ("search_registered_models", {
                        # Of none at a time MLflow gives pages without end.
                        "max_results": size["max_results"] or 2,
                        "filter_string": self._one(REGISTRY_FILTERS),
                        "order_by": self._one([None, ["name DESC"], ["last_updated_timestamp"]],
                                              [["nothing"]]),
                    }),
                    ("search_model_versions", {
                        **size, "filter_string": self._one(VERSION_FILTERS),
                        "order_by": self._one([None, ["version_number DESC", "name"],
                                               ["creation_timestamp ASC"]], [["nothing"]]),
                    }),
                ]
            )
        )  # fmt: skip
