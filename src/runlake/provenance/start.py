"""How a run began, as far as nobody can tell any more by the time that somebody looks.

The interpreter forgets the script's path when the script has ended, and that may be before a run
of a moment is told where it comes from.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

_TEXT_CHARS: Final = 4000
_VARIABLES: Final = 500
_CUT: Final = "… (cut)"
# Variables that tell how a process was started, and what changes its numbers.
_NAMES: Final = frozenset(
    """
    RANK WORLD_SIZE LOCAL_RANK LOCAL_WORLD_SIZE NODE_RANK GROUP_RANK GROUP_WORLD_SIZE ROLE_RANK
    ROLE_WORLD_SIZE ROLE_NAME MASTER_ADDR MASTER_PORT HOSTNAME POD_NAME POD_NAMESPACE POD_UID
    POD_IP NODE_NAME JOB_NAME JOB_ID JOB_COMPLETION_INDEX PBS_JOBID PBS_JOBNAME PBS_ARRAY_INDEX
    PBS_QUEUE LSB_JOBID LSB_JOBNAME LSB_JOBINDEX SGE_TASK_ID FLUX_JOB_ID COBALT_JOBID
    AWS_BATCH_JOB_ID AWS_BATCH_JOB_ARRAY_INDEX RAY_JOB_ID CLOUD_ML_JOB_ID TRAINING_JOB_NAME
    CUDA_VISIBLE_DEVICES CUDA_DEVICE_ORDER CUDA_LAUNCH_BLOCKING NVIDIA_VISIBLE_DEVICES
    ROCR_VISIBLE_DEVICES HIP_VISIBLE_DEVICES ZE_AFFINITY_MASK TPU_VISIBLE_DEVICES
    CUBLAS_WORKSPACE_CONFIG TF32_OVERRIDE NVIDIA_TF32_OVERRIDE OMP_NUM_THREADS MKL_NUM_THREADS
    OPENBLAS_NUM_THREADS NUMEXPR_NUM_THREADS VECLIB_MAXIMUM_THREADS POLARS_MAX_THREADS
    TOKENIZERS_PARALLELISM PYTHONHASHSEED PYTHONPATH PYTHONOPTIMIZE VIRTUAL_ENV CONDA_PREFIX
    CONDA_DEFAULT_ENV XLA_FLAGS JAX_PLATFORMS JAX_ENABLE_X64 TF_DETERMINISTIC_OPS
    TF_ENABLE_ONEDNN_OPTS KERAS_BACKEND CI CI_JOB_ID CI_JOB_URL CI_PIPELINE_ID CI_COMMIT_SHA
    GITHUB_ACTIONS GITHUB_SHA GITHUB_REF GITHUB_REPOSITORY GITHUB_RUN_ID GITHUB_RUN_ATTEMPT
    GITHUB_WORKFLOW GITHUB_JOB BUILD_ID BUILD_URL BUILD_TAG
    """.split()  # noqa: SIM905 - a table
)
_PREFIXES: Final = ("SLURM_", "TORCHELASTIC_", "OMPI_COMM_WORLD_", "PMI_", "PMIX_RANK", "NCCL_")
# What Python calls the program that it reads from its standard input.
_STDIN: Final = "<stdin>"


class Start(NamedTuple):
    """What may change while a process runs, as it was when a run began.

    Attributes:
        arguments: `sys.argv`.
        folder: the working directory; None where it is gone.
        kind: what the process was started with: `notebook`, `module`, `script`, `command`
            (`python -c`), `stdin` or `prompt`.
        name: the notebook's path, the module's name or the script's path, where it has one.
        script: the file that runs as the main program; None in a notebook or at a prompt.
        environment: variables that tell how the process was started, and that change numbers.
    """

    arguments: tuple[str, ...]
    folder: str | None
    kind: str
    name: str | None
    script: str | None
    environment: tuple[tuple[str, str], ...]

    @classmethod
    def now(cls) -> Start:
        """Look at once."""
        folder = None
        with suppress(OSError):
            folder = os.getcwd()  # noqa: PTH109 - a text is wanted
        kind, name = _entry()
        return cls(
            arguments=tuple(map(str, getattr(sys, "argv", ()))),
            folder=folder,
            kind=kind,
            name=name,
            script=_script(),
            environment=_environment(),
        )


def _environment() -> tuple[tuple[str, str], ...]:
    """Return the variables that matter, in the order of their names, long ones cut."""
    # Names first: to ask for values takes longer.
    names = [name for name in os.environ if name in _NAMES or name.startswith(_PREFIXES)]
    wanted = [(name, os.environ.get(name, "")) for name in sorted(names)[:_VARIABLES]]
    return tuple(
        (name, text if len(text) <= _TEXT_CHARS else text[:_TEXT_CHARS] + _CUT)
        for name, text in wanted
    )


def _entry() -> tuple[str, str | None]:
    """Return what this process was started with, and its name."""
    main = sys.modules.get("__main__")
    if "ipykernel" in sys.modules:
        return "notebook", _notebook(vars(main) if main is not None else {})
    spec = getattr(main, "__spec__", None)
    if spec is not None and spec.name != "__main__":
        return "module", str(spec.name).removesuffix(".__main__")
    if (script := _script()) is not None:
        return "script", script
    first = (getattr(sys, "argv", None) or [""])[0]
    if first == "-c":
        return "command", None
    is_prompt = hasattr(sys, "ps1") or "IPython" in sys.modules
    return ("prompt" if is_prompt else "stdin"), None


def _script() -> str | None:
    """Return the file that runs as the main program; None in a notebook or at a prompt."""
    file = getattr(sys.modules.get("__main__"), "__file__", None)
    if not file or file == _STDIN:
        return None
    return os.path.abspath(str(file))  # noqa: PTH100 - links are kept


def _notebook(names: Mapping[str, Any]) -> str | None:
    """Return the path of the notebook, where who runs it tells; editors differ in how."""
    for found in (
        os.environ.get("JPY_SESSION_NAME"),
        names.get("__vsc_ipynb_file__"),
        names.get("__session__"),
        os.environ.get("IPYNB_FILE"),
    ):
        if found and isinstance(found, str):
            # Some servers add an id of the session behind the name.
            head, ending, _ = found.partition(".ipynb")
            return head + ending
    return None
