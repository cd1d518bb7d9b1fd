"""What a claim may take is made anew when something has changed, and only then."""

from collections.abc import Callable
from datetime import timedelta

import anyio
import pytest

from orchestrator.clock import SystemClock
from orchestrator.job_queue.claim import ClaimQuery
from orchestrator.job_queue.eligibility import Eligibility
from orchestrator.limits.admission import Admission
from orchestrator.limits.rate_limiter import RateLimiters
from orchestrator.model import Halt, Scope
from orchestrator.store import Database
from orchestrator.verification.bucket_permissions import BucketPermissions, VerifyMode
from orchestrator.verification.resend_policy import ResolvePolicy
from tests.bench import KEYS
from tests.cloud.scripted import FixedCredentials
from tests.stores import PROFILE, REGION

pytestmark = pytest.mark.anyio

HOST = "cvm.example"
POLICY = ResolvePolicy(timedelta(minutes=2), 5, timedelta(hours=1))


@pytest.fixture
def admission(sqlite: Database) -> Admission:
    """Traffic that nothing holds up yet."""
    return Admission(
        PROFILE,
        RateLimiters(sqlite, 0),
        FixedCredentials(KEYS),
        lambda _sentence: None,
        quota_wait=60,
    )


@pytest.fixture
def permissions(admission: Admission) -> BucketPermissions:
    """Buckets of which none is closed yet."""
    return BucketPermissions(VerifyMode.AUTO, admission.halts, lambda _sentence: None)


@pytest.fixture
def eligibility(admission: Admission, permissions: BucketPermissions) -> Eligibility:
    """A run of one region."""
    return Eligibility(
        profile=PROFILE,
        batch=None,
        admission=admission,
        permissions=permissions,
        policy=POLICY,
        regions={HOST: [REGION]},
        clock=SystemClock(),
    )


def stop(admission: Admission, scope: Scope, value: str) -> None:
    admission.halts.add(Halt(scope, value, "Code", "said", "do this"))


def written(what: ClaimQuery) -> tuple[str, object]:
    """A query's text, and the values that stand in it."""
    compiled = what.next_jobs.compile()
    return str(compiled), {name: str(value) for name, value in compiled.params.items()}


CHANGES: dict[str, Callable[[Admission, BucketPermissions], object]] = {
    "a bucket is stopped": lambda admission, _: stop(admission, Scope.BUCKET, f"{REGION}/b-1"),
    "an endpoint is stopped": lambda admission, _: stop(admission, Scope.ENDPOINT, HOST),
    "nothing can be looked at": lambda admission, _: setattr(admission, "can_look", False),
    "a bucket is closed": lambda _, permissions: permissions.unreadable.update(
        {f"{REGION}/b-1": anyio.current_time() + 60}
    ),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
async def test_a_change_makes_another_query(
    eligibility: Eligibility,
    admission: Admission,
    permissions: BucketPermissions,
    change: Callable[[Admission, BucketPermissions], object],
) -> None:
    """The same query serves every claim, until what may be taken is something else."""
    before = eligibility.wanted()
    assert eligibility.wanted() is before
    change(admission, permissions)
    after = eligibility.wanted()
    assert after is eligibility.wanted()
    assert written(after) != written(before)
