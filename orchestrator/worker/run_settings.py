"""The settings of one run, and the objects that it works with.

They differ from `orchestrator.settings`, which reads flags, environment and file: here every value
has its final type, and only what a run needs is left.
"""

from dataclasses import dataclass
from datetime import timedelta

from orchestrator.cloud.cos import CosClient
from orchestrator.cloud.cvm import CvmClient
from orchestrator.limits.admission import Admission
from orchestrator.store import Database
from orchestrator.verification.bucket_access import VerifyMode
from orchestrator.verification.resend_policy import ResolvePolicy


@dataclass(frozen=True, slots=True)
class RunSettings:
    """The parameters of one run.

    Args:
        batch: only this batch; ``None`` is all.
        concurrency: maximum number of requests in flight.
        verify_interval: time between two checks of one job; ``None`` depends on its age.
        request_timeout: maximum time for one request.
        forever: wait for more work instead of ending when nothing is left to do.
        time_limit: seconds after which nothing more is claimed.
    """

    profile: str
    batch: str | None
    concurrency: int
    verify: VerifyMode
    verify_interval: timedelta | None
    request_timeout: timedelta
    resolve: ResolvePolicy
    forever: bool = False
    time_limit: float | None = None


@dataclass(frozen=True, slots=True)
class RunContext:
    """The store, the clients of CVM and COS, and the admission of requests."""

    database: Database
    cvm: CvmClient
    cos: CosClient
    admission: Admission
