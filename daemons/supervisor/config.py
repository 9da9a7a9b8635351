"""What `muster run` can be told in the configuration file; options of the command come first."""

from typing import Annotated

import msgspec

from daemons.section import Positive, Section

NotNegative = Annotated[float, msgspec.Meta(ge=0)]


class RunConfig(Section, frozen=True, kw_only=True):
    """[run] directory: where logs, records and evidence of jobs are kept (default: below the user's state directory).

    max_restarts: how often a job is started again. stuck_terminate_after: seconds after which a stuck job is ended.
    stop_grace: seconds between SIGTERM and SIGKILL, for the trainer's last checkpoint. instrument: put a start-up
    hook into Python ranks that lets them answer while they hang. backoff: seconds before the first restart; doubled
    each time up to backoff_limit. floor: no silence shorter than this is ever called stuck.
    grace: seconds of silence that are borne in each phase that is known to be long.
    """

    directory: str = ""
    max_restarts: Annotated[int, msgspec.Meta(ge=0)] = 0
    stuck_terminate_after: NotNegative = 1800.0
    stop_grace: NotNegative = 30.0
    instrument: bool = True
    backoff: NotNegative = 1.0
    backoff_limit: Positive = 300.0
    start_grace: Positive = 600.0
    compile_grace: Positive = 1800.0
    eval_grace: Positive = 1800.0
    checkpoint_grace: Positive = 1800.0
    evidence_seconds: Positive = 60.0
    keep_jobs: Annotated[int, msgspec.Meta(ge=1)] = 50
