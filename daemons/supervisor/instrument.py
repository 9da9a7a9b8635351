"""What is put into a job's environment so that its ranks can be asked while they hang.

Nothing here changes the command. torchrun takes every option from the environment too (PET_*), which is how each rank
gets its own log. Whatever the user has set stays as it is.
"""

import os
from collections.abc import Mapping
from pathlib import Path

_HOOK = Path(__file__).parent / "job"
_BEAT = Path(__file__).parents[2] / "trainer/beat"

# Entries of torch's flight recorder; asking for them costs the rank's C++ server about 8 microseconds each, so the
# ring is kept just long enough for the last steps of a model with some hundred collectives per step.
_FLIGHT_RECORDER_ENTRIES = "512"


def job_environment(
    environment: Mapping[str, str], *, job: str, attempt: int, scratch: Path, rank_logs: Path | None, hook: bool
) -> dict[str, str]:
    """The environment of a job's first process.

    rank_logs: where torchrun keeps each rank's output, None for nowhere. hook: whether Python ranks are to answer.
    """
    found = dict(environment)
    found.pop("MUSTER_JOB_TOKEN", None)  # the supervisors' secret is not the job's
    found["MUSTER_JOB"] = job
    found["MUSTER_ATTEMPT"] = str(attempt)
    found["MUSTER_BEAT_DIR"] = str(scratch / "beat")
    path = [str(_BEAT), *([found["PYTHONPATH"]] if found.get("PYTHONPATH") else [])]
    if hook:
        found["MUSTER_HOOK_DIR"] = str(scratch / "hook")
        path.insert(0, str(_HOOK))
        # A pipe would hold a rank's last lines back until they are lost with it; a terminal would not.
        found.setdefault("PYTHONUNBUFFERED", "1")
        found.setdefault("PYTHONFAULTHANDLER", "1")
        found.setdefault("TORCH_FR_BUFFER_SIZE", _FLIGHT_RECORDER_ENTRIES)
        found.setdefault("TORCH_NCCL_DUMP_ON_TIMEOUT", "1")
    found["PYTHONPATH"] = os.pathsep.join(path)
    if rank_logs is not None and "PET_REDIRECTS" not in found and "PET_LOG_DIR" not in found:
        found.setdefault("PET_TEE", "3")
        found["PET_LOG_DIR"] = str(rank_logs)
        found.setdefault("TORCHELASTIC_LOG_LINE_PREFIX_TEMPLATE", "[rank${rank}]: ")
    return found
