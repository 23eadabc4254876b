"""Every column of the format, its kinds and its limits: the twin in code of `docs/spec/v1.md`."""

from __future__ import annotations

from typing import Final

FORMAT_VERSION: Final = 1

# The columns of a segment, in file order: (name, Parquet type as DuckDB names it).
SEGMENT_COLUMNS: Final = (
    ("run_id", "VARCHAR"),
    ("kind", "VARCHAR"),
    ("key", "VARCHAR"),
    ("step", "BIGINT"),
    ("timestamp", "TIMESTAMP WITH TIME ZONE"),
    ("num", "DOUBLE"),
    ("str", "VARCHAR"),
)

# Kinds of events that this version writes. Readers pass unknown kinds through.
RUN: Final = "run"  # one attribute of a run: key is the attribute (see RUN_*), num or str the value
PARAM: Final = "param"  # str the text, num the number beside it where it is one
TAG: Final = "tag"  # str the text; a tag is gone while str is null
METRIC: Final = "metric"  # step, the user's timestamp, num
STATUS: Final = "status"  # str one of STATUSES, num the time of it in microseconds since 1970
ARTIFACT: Final = "artifact"  # key the path in the run, num the size, str JSON; null: deleted
INPUT: Final = "input"  # key tells data sets apart, str JSON of a data set and its context
DATASET: Final = "dataset"  # key as of the input, str JSON with schema and profile
NOTE: Final = "note"  # key what it is about (`traceback`), str the text
HISTOGRAM: Final = "histogram"  # key its name, str JSON with step, edges and counts
CONSOLE: Final = "console"  # key the stream, num the line's number, str its text
ALERT: Final = "alert"  # key the level, str JSON with title and text
PROVENANCE: Final = "provenance"  # key what it is about (`git`, `packages`), str JSON
IMPORT: Final = "import"  # key the tracker that the run came from, num its points, str JSON
MODEL: Final = "model"  # key the logged model's id, num when, str JSON; see the spec
MODEL_STATUS: Final = "model_status"  # key the model, num when, str JSON with one of MODEL_STATUSES
MODEL_PARAM: Final = "model_param"  # key the model, `/` and the param, str the text
MODEL_TAG: Final = "model_tag"  # key the model, `/` and the tag, str the text; gone while null
MODEL_METRIC: Final = "model_metric"  # key the model, num the value, str JSON of the point
MODEL_DELETE: Final = "model_delete"  # key the model, num when; str `erased` where it is for ever
MODEL_INPUT: Final = "model_input"  # the run read a model; key the model
OUTPUT: Final = "output"  # the run made a model; key the model, num the step
DELETE: Final = "delete"  # the run is hidden
RESTORE: Final = "restore"  # the run is shown again
HEARTBEAT: Final = "heartbeat"  # the writer lives, though it has nothing new; run_id is empty
CLOSE: Final = "close"  # the writer ends here; run_id is empty

# Kinds in the reserved partition; run_id holds the experiment's id.
EXPERIMENT_CREATE: Final = "experiment_create"  # key the name, str JSON of the claim
EXPERIMENT_RENAME: Final = "experiment_rename"  # key the new name
EXPERIMENT_TAG: Final = "experiment_tag"  # key, str the text; gone while str is null
EXPERIMENT_DELETE: Final = "experiment_delete"
EXPERIMENT_RESTORE: Final = "experiment_restore"

# Kinds in the reserved partition about registered models; run_id holds the model's id.
REGISTRY_MODEL_CREATE: Final = "registry_model_create"  # key the name, str JSON of the claim
REGISTRY_MODEL_RENAME: Final = "registry_model_rename"  # key the new name, str JSON of the claim
REGISTRY_MODEL_UPDATE: Final = "registry_model_update"  # key `description`, str JSON with it
REGISTRY_MODEL_TAG: Final = "registry_model_tag"  # key the tag, str JSON with its value
REGISTRY_MODEL_DELETE: Final = "registry_model_delete"
REGISTRY_VERSION_CREATE: Final = "registry_version_create"  # num the version, as in all below
REGISTRY_VERSION_UPDATE: Final = "registry_version_update"
REGISTRY_VERSION_TAG: Final = "registry_version_tag"  # key the tag, str JSON with its value
REGISTRY_VERSION_STAGE: Final = "registry_version_stage"  # key the stage
REGISTRY_VERSION_DELETE: Final = "registry_version_delete"
REGISTRY_ALIAS: Final = "registry_alias"  # key the alias, num the version; null: taken away
REGISTRY_PROMOTION: Final = "registry_promotion"  # key the alias, str JSON with what was found

# Keys of kind `run`. The earliest stands (min of clock, writer, seq) except for RUN_NAME.
RUN_NAME: Final = "name"  # chosen by a person; the latest stands
RUN_AUTO_NAME: Final = "auto_name"  # derived from the run id; stands where no name was chosen
RUN_START: Final = "start"  # num: microseconds since 1970
RUN_USER: Final = "user"
RUN_SOURCE: Final = "source"
RUN_PARENT: Final = "parent"  # str: the parent's run id
RUN_RANK: Final = "rank"  # num: the rank of this writer's process

# Keys of kind `status`: a writer's own word is how its part of the run stands.
STATUS_OWN: Final = ""
STATUS_SET: Final = "set"  # how the run stands, whoever writes it; num its end, null: none given

# Keys of metrics that no caller gave: what the machine did meanwhile.
SYSTEM_PREFIX: Final = "system/"

# Keys of kind `alert`: how grave it is.
ALERT_LEVELS: Final = ("info", "warning", "error")

RUNNING: Final = "RUNNING"
SCHEDULED: Final = "SCHEDULED"
FINISHED: Final = "FINISHED"
FAILED: Final = "FAILED"
KILLED: Final = "KILLED"
STATUSES: Final = (RUNNING, SCHEDULED, FINISHED, FAILED, KILLED)
OPEN: Final = frozenset({RUNNING, SCHEDULED})
ENDED: Final = frozenset({FINISHED, FAILED, KILLED})

MODEL_PENDING: Final = "PENDING"
MODEL_READY: Final = "READY"
MODEL_FAILED: Final = "FAILED"
MODEL_STATUSES: Final = (MODEL_PENDING, MODEL_READY, MODEL_FAILED)  # of logged models
MODEL_ERASED: Final = "erased"

STAGE_NONE: Final = "None"
STAGE_ARCHIVED: Final = "Archived"
STAGES: Final = (STAGE_NONE, "Staging", "Production", STAGE_ARCHIVED)  # of versions of models

ACTIVE: Final = "active"
DELETED: Final = "deleted"

RESERVED_PARTITION: Final = "_lake"

# Footer keys of a segment (docs/spec/v1.md, "Segment file").
FOOTER_KEY: Final = b"runlake"
STATE_KEY: Final = b"runlake.state"

# Limits on what callers give; each is checked where it comes in.
KEY_LIMIT_CHARS: Final = 250
NAME_LIMIT_CHARS: Final = 500  # of experiments and registered models, as in MLflow
TEXT_LIMIT_BYTES: Final = 1 << 20  # one param, tag, note or name: 1 MiB of UTF-8
