"""What a person has to mend stops just what it concerns, at once, and says what to do."""

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.errors import CredentialError
from orchestrator.job_states import JobState
from orchestrator.model import Scope
from orchestrator.orchestrator import Orchestrator
from orchestrator.simulator import (
    DEFAULT_KEY,
    BucketSettings,
    Duration,
    Fault,
    ImageSettings,
    Key,
    Refusal,
    Simulator,
)
from tests.end_to_end.scene import (
    BUCKET,
    Store,
    accepted,
    drained,
    images,
    jobs_of,
    keys_of,
    once_each,
    orders,
    ran,
    ran_until,
    requests,
    states_of,
    together,
)

pytestmark = pytest.mark.anyio

OTHER = "archive-1250000000"


async def test_a_missing_bucket_stops_only_itself(
    orchestrator: Orchestrator, cloud: Simulator
) -> None:
    """A bucket that does not exist holds up its own jobs, which wait unspent; others go on."""
    cloud.change(buckets={BUCKET: BucketSettings(missing=True)})
    await orchestrator.enqueue(orders(images(40)))
    result = await drained(orchestrator, orders(images(6, first=40), bucket=OTHER))
    (stop,) = result.blocked
    assert (stop.scope, stop.value) == (Scope.BUCKET, f"ap-singapore/{BUCKET}")
    assert stop.code == "InvalidParameterValue.BucketNotFound"
    assert (result.counts[JobState.VERIFIED], result.left) == (6, 40)
    assert {job.attempts for job in await jobs_of(orchestrator, buckets=(BUCKET,))} == {0}
    assert sum(entry.bucket == BUCKET for entry in requests(cloud)) <= 16


async def test_a_mended_bucket_goes_on(orchestrator: Orchestrator, cloud: Simulator) -> None:
    """Once the fault is mended the next run takes up what was stopped."""
    cloud.change(buckets={BUCKET: BucketSettings(missing=True)})
    await drained(orchestrator, orders(images(5)))
    cloud.change(buckets={})
    result = await ran(orchestrator)
    assert result.counts[JobState.VERIFIED] == 5
    assert result.blocked == ()
    assert accepted(cloud) == once_each(images(5))


async def test_a_missing_role_stops_only_itself(
    orchestrator: Orchestrator, cloud: Simulator
) -> None:
    """A role that does not exist holds up the jobs that name it, and no others."""
    cloud.change(absent_roles=("Exporter",))
    await orchestrator.enqueue(orders(images(10), role_name="Exporter"))
    result = await drained(orchestrator, orders(images(4, first=10)))
    (stop,) = result.blocked
    assert (stop.scope, stop.value) == (Scope.ROLE, "Exporter")
    assert (result.counts[JobState.VERIFIED], result.counts[JobState.QUEUED]) == (4, 10)


async def test_a_wrong_region_stops_only_itself(
    orchestrator: Orchestrator, cloud: Simulator
) -> None:
    """A region that the endpoint does not serve holds up its jobs, and no others."""
    await orchestrator.enqueue(orders(images(10), region="ap-atlantis"))
    result = await drained(orchestrator, orders(images(4, first=10)))
    (stop,) = result.blocked
    assert (stop.scope, stop.value) == (Scope.REGION, "ap-atlantis")
    assert (result.counts[JobState.VERIFIED], result.counts[JobState.QUEUED]) == (4, 10)


@pytest.mark.parametrize(
    ("key", "code"),
    [
        (replace(DEFAULT_KEY, secret_id="AKIDnobody"), "AuthFailure.SecretIdNotFound"),
        (replace(DEFAULT_KEY, secret_key="mistyped"), "AuthFailure.SignatureFailure"),
        (replace(DEFAULT_KEY, token="stale"), "AuthFailure.TokenFailure"),
    ],
)
async def test_a_wrong_key_stops_everything(
    store: Store, cloud: Simulator, key: Key, code: str
) -> None:
    """With keys that are refused nothing is accepted, few requests leave, and no job is spent."""
    async with store(environ=keys_of(key)) as orchestrator:
        await orchestrator.enqueue(orders(images(30)))
        result = await drained(orchestrator, orders(images(30, first=30), region="ap-tokyo"))
        assert {job.attempts for job in await jobs_of(orchestrator)} == {0}
    assert {stop.code for stop in result.blocked} == {code}
    assert result.counts[JobState.QUEUED] == result.left == 60
    assert not accepted(cloud)
    assert len(cloud.ledger) <= 4


async def test_a_key_that_is_refused_in_the_middle(
    orchestrator: Orchestrator, cloud: Simulator
) -> None:
    """A key that dies under way stops the sending; what was accepted before is still verified."""
    cloud.change(
        codes=(Refusal("AuthFailure.SecretIdNotFound", images=tuple(images(1, first=20))),)
    )
    result = await drained(orchestrator, orders(images(200)))
    assert [stop.scope for stop in result.blocked] == [Scope.CREDENTIAL]
    assert result.counts[JobState.VERIFIED] == sum(accepted(cloud).values())
    assert result.counts[JobState.VERIFIED] + result.counts[JobState.QUEUED] == 200
    codes = [entry.code for entry in requests(cloud)]
    assert len(codes) - codes.index("AuthFailure.SecretIdNotFound") <= 16


async def test_a_policy_on_single_images(orchestrator: Orchestrator, cloud: Simulator) -> None:
    """One image's refusal by CAM says little of the rest; a second image's stops the account."""
    forbidden = images(2)
    cloud.change(
        codes=(Refusal("UnauthorizedOperation", images=tuple(forbidden)),),
        images={image: ImageSettings(sizes=(400,)) for image in forbidden},
    )
    result = await drained(orchestrator, orders(images(20)))
    assert [stop.code for stop in result.blocked] == ["UnauthorizedOperation"]
    assert result.counts[JobState.FAILED] == 0
    assert await states_of(orchestrator, images=tuple(forbidden)) == {JobState.QUEUED: 2}


async def test_a_clock_that_is_an_hour_off(store: Store, cloud: Simulator) -> None:
    """A wrong clock is set right by the server's: all is exported, and no attempt is spent."""
    cloud.change(skew=3600)
    async with store() as orchestrator:
        result = await drained(orchestrator, orders(images(12)))
        assert {job.attempts for job in await jobs_of(orchestrator)} == {1}
    assert result.counts[JobState.VERIFIED] == 12
    assert result.blocked == ()
    assert accepted(cloud) == once_each(images(12))


async def test_a_clock_that_jumps_under_way(orchestrator: Orchestrator, cloud: Simulator) -> None:
    """Signatures that were refused for their time are made anew, by the server's clock."""
    await drained(orchestrator, orders(images(2)))
    await orchestrator.enqueue(orders(images(12, first=2)))
    cloud.change(skew=-7200)
    result = await ran(orchestrator)
    assert result.counts[JobState.VERIFIED] == 12
    assert accepted(cloud) == once_each(images(14))


async def test_keys_that_run_out_under_way(store: Store, cloud: Simulator, tmp_path: Path) -> None:
    """When a login expires the run ends and says so; after a fresh one the next does the rest."""
    cloud.change(cap=4, duration=Duration(seconds=2000))
    log_in(tmp_path, lasts=600)
    async with store(environ={}) as orchestrator:
        await orchestrator.enqueue(orders(images(10)))
        result = await ran_until(
            orchestrator,
            lambda: accepted(cloud).total() == 4,
            lambda: cloud.change(skew=700),
        )
        assert [stop.scope for stop in result.blocked] == [Scope.CREDENTIAL]
        assert "tccli" in result.blocked[0].remedy
        assert (result.counts[JobState.ACCEPTED], result.left) == (4, 10)
        cloud.change(skew=2100, duration=Duration(seconds=0.2))
        log_in(tmp_path, lasts=2700)
        assert (await ran(orchestrator)).counts[JobState.VERIFIED] == 10
    assert accepted(cloud) == once_each(images(10))


def log_in(home: Path, *, lasts: float) -> None:
    """Leaves what a login by tccli leaves."""
    place = home / ".tccli" / "default.credential"
    place.parent.mkdir(exist_ok=True)
    key = {"secretId": DEFAULT_KEY.secret_id, "secretKey": DEFAULT_KEY.secret_key}
    place.write_text(json.dumps({**key, "expiresAt": time.time() + lasts}))


async def test_no_keys_at_all(store: Store, cloud: Simulator) -> None:
    """With work to do and no keys the run says so before anything is sent."""
    async with store(environ={}) as orchestrator:
        await orchestrator.enqueue(orders(images(1)))
        with pytest.raises(CredentialError, match="No Tencent Cloud credentials"):
            await orchestrator.run()
        assert await states_of(orchestrator) == {JobState.QUEUED: 1}
    assert {entry.service for entry in cloud.ledger} == {"metadata"}


async def test_images_may_not_be_described(store: Store, cloud: Simulator) -> None:
    """Without the right to describe, exports go on without sizes; the right is named once."""
    cloud.change(codes=(Refusal("UnauthorizedOperation", action="DescribeImages"),))
    said: list[str] = []
    async with store(notify=said.append) as orchestrator:
        result = await drained(orchestrator, orders(images(5)))
    assert result.counts[JobState.VERIFIED] == 5
    assert result.blocked == ()
    assert sum("cvm:DescribeImages" in one for one in said) == 1
    assert len(requests(cloud, "DescribeImages")) == 1


async def test_lost_answers_of_images_that_may_not_be_described(
    store: Store, cloud: Simulator
) -> None:
    """Adopted without knowing which objects to expect, an export is not taken for whole."""
    cloud.change(
        codes=(Refusal("UnauthorizedOperation", action="DescribeImages"),),
        faults=(Fault("reset", action="ExportImages", after=True, times=1),),
    )
    async with store(export_deadline=1) as orchestrator:
        await drained(orchestrator, [together(images(2))])
        (job,) = await jobs_of(orchestrator)
    assert (job.state, job.code) == (JobState.FAILED, "Orchestrator.NotDelivered")
    assert len(requests(cloud)) == 1


async def test_an_unknown_image_among_a_hundred(
    orchestrator: Orchestrator, cloud: Simulator
) -> None:
    """One unknown image fails alone; the other ninety-nine are described, sent and verified."""
    batch = images(100)
    cloud.change(images={batch[37]: ImageSettings(missing=True)})
    result = await drained(orchestrator, orders(batch))
    assert (result.counts[JobState.VERIFIED], result.counts[JobState.FAILED]) == (99, 1)
    (failed,) = await jobs_of(orchestrator, states=("failed",))
    assert (failed.image_ids, failed.code) == ((batch[37],), "InvalidImageId.NotFound")
    assert len(requests(cloud, "DescribeImages")) <= 16
    assert accepted(cloud) == once_each(set(batch) - {batch[37]})


async def test_descriptions_that_fail_for_long(
    orchestrator: Orchestrator, cloud: Simulator
) -> None:
    """Images that cannot be described for faults of the service are exported all the same."""
    cloud.change(codes=(Refusal("InternalError", action="DescribeImages"),))
    result = await drained(orchestrator, orders(images(3)))
    assert result.counts[JobState.VERIFIED] == 3
