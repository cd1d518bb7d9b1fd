"""What a claim may take is made anew when something has changed, and only then."""

from collections.abc import Callable
from datetime import timedelta

import anyio
import pytest

from orchestrator.clock import SystemClock
from orchestrator.job_queue.claim import Wanted
from orchestrator.job_queue.eligibility import Reach
from orchestrator.limits.admission import Traffic
from orchestrator.limits.rate_limiter import Pacer
from orchestrator.model import Scope, Stop
from orchestrator.store import Database
from orchestrator.verification.bucket_permissions import Sight, VerifyMode
from orchestrator.verification.resend_policy import ResolvePolicy
from tests.bench import KEYS
from tests.cloud.scripted import HeldKeys
from tests.stores import PROFILE, REGION

pytestmark = pytest.mark.anyio

HOST = "cvm.example"
POLICY = ResolvePolicy(timedelta(minutes=2), 5, timedelta(hours=1))


@pytest.fixture
def traffic(sqlite: Database) -> Traffic:
    """Traffic that nothing holds up yet."""
    return Traffic(PROFILE, Pacer(sqlite, 0), HeldKeys(KEYS), lambda _sentence: None, quota_wait=60)


@pytest.fixture
def sight(traffic: Traffic) -> Sight:
    """Buckets of which none is closed yet."""
    return Sight(VerifyMode.AUTO, traffic.stops, lambda _sentence: None)


@pytest.fixture
def reach(traffic: Traffic, sight: Sight) -> Reach:
    """A run of one region."""
    return Reach(
        profile=PROFILE,
        batch=None,
        traffic=traffic,
        sight=sight,
        policy=POLICY,
        regions={HOST: [REGION]},
        clock=SystemClock(),
    )


def stop(traffic: Traffic, scope: Scope, value: str) -> None:
    traffic.stops.begin(Stop(scope, value, "Code", "said", "do this"))


def written(what: Wanted) -> tuple[str, object]:
    """A query's text, and the values that stand in it."""
    compiled = what.next_jobs.compile()
    return str(compiled), {name: str(value) for name, value in compiled.params.items()}


CHANGES: dict[str, Callable[[Traffic, Sight], object]] = {
    "a bucket is stopped": lambda traffic, _: stop(traffic, Scope.BUCKET, f"{REGION}/b-1"),
    "an endpoint is stopped": lambda traffic, _: stop(traffic, Scope.ENDPOINT, HOST),
    "nothing can be looked at": lambda traffic, _: setattr(traffic, "can_look", False),
    "a bucket is closed": lambda _, sight: sight.blind.update(
        {f"{REGION}/b-1": anyio.current_time() + 60}
    ),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
async def test_a_change_makes_another_query(
    reach: Reach, traffic: Traffic, sight: Sight, change: Callable[[Traffic, Sight], object]
) -> None:
    """The same query serves every claim, until what may be taken is something else."""
    before = reach.wanted()
    assert reach.wanted() is before
    change(traffic, sight)
    after = reach.wanted()
    assert after is reach.wanted()
    assert written(after) != written(before)
