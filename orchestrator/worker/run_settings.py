"""What a run is to do, and what it works with."""

from dataclasses import dataclass
from datetime import timedelta

from orchestrator.cloud.cos import CosClient
from orchestrator.cloud.cvm import CvmClient
from orchestrator.limits.admission import Admission
from orchestrator.store import Database
from orchestrator.verification.bucket_permissions import VerifyMode
from orchestrator.verification.resend_policy import ResolvePolicy


@dataclass(frozen=True, slots=True)
class RunSettings:
    """What a run is to do, and how.

    Args:
        batch: only this batch; ``None`` is all.
        concurrency: requests in the air at once.
        verify_interval: time between looks at one job; ``None`` follows its age.
        request_timeout: longest time of one request.
        forever: wait for more instead of ending when nothing can move.
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
    """What a run works with."""

    database: Database
    cvm: CvmClient
    cos: CosClient
    admission: Admission
