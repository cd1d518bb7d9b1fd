"""A fault that an operator must fix halts only what it concerns, and says what to do."""

import json
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from orchestrator import clock
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
from tests.end_to_end.harness import (
    BUCKET,
    OpenStore,
    count_exports,
    count_states,
    enqueue_and_run,
    make_credential_variables,
    make_image_ids,
    make_multi_image_request,
    make_requests_for,
    once_each,
    read_jobs,
    read_ledger,
    run_and_change,
    run_to_end,
)

pytestmark = pytest.mark.anyio

OTHER = "archive-1250000000"


async def test_missing_bucket_halts_only_its_jobs(
    orchestrator: Orchestrator, cloud: Simulator
) -> None:
    """A missing bucket halts only its own jobs, and no attempt is charged."""
    cloud.change(buckets={BUCKET: BucketSettings(missing=True)})
    await orchestrator.enqueue(make_requests_for(make_image_ids(40)))
    result = await enqueue_and_run(
        orchestrator, make_requests_for(make_image_ids(6, first=40), bucket=OTHER)
    )
    (stop,) = result.blocked
    assert (stop.scope, stop.value) == (Scope.BUCKET, f"ap-singapore/{BUCKET}")
    assert stop.code == "InvalidParameterValue.BucketNotFound"
    assert (result.counts[JobState.VERIFIED], result.left) == (6, 40)
    assert {job.attempts for job in await read_jobs(orchestrator, buckets=(BUCKET,))} == {0}
    assert sum(entry.bucket == BUCKET for entry in read_ledger(cloud)) <= 16


async def test_fixed_bucket_is_used_by_the_next_run(
    orchestrator: Orchestrator, cloud: Simulator
) -> None:
    """After the fault is fixed, the next run exports what was halted."""
    cloud.change(buckets={BUCKET: BucketSettings(missing=True)})
    await enqueue_and_run(orchestrator, make_requests_for(make_image_ids(5)))
    cloud.change(buckets={})
    result = await run_to_end(orchestrator)
    assert result.counts[JobState.VERIFIED] == 5
    assert result.blocked == ()
    assert count_exports(cloud) == once_each(make_image_ids(5))


async def test_missing_role_halts_only_its_jobs(
    orchestrator: Orchestrator, cloud: Simulator
) -> None:
    """A role that does not exist halts the jobs that name it, and no others."""
    cloud.change(absent_roles=("Exporter",))
    await orchestrator.enqueue(make_requests_for(make_image_ids(10), role_name="Exporter"))
    result = await enqueue_and_run(orchestrator, make_requests_for(make_image_ids(4, first=10)))
    (stop,) = result.blocked
    assert (stop.scope, stop.value) == (Scope.ROLE, "Exporter")
    assert (result.counts[JobState.VERIFIED], result.counts[JobState.QUEUED]) == (4, 10)


async def test_few_requests_are_refused_while_a_role_is_suspected(
    orchestrator: Orchestrator, cloud: Simulator
) -> None:
    """A role that is removed during a run costs a few probes, and other jobs go on."""
    cloud.change(cap=None)
    with_role = make_requests_for(make_image_ids(60), role_name="Exporter")
    await orchestrator.enqueue([*with_role, *make_requests_for(make_image_ids(60, first=60))])
    result = await run_and_change(
        orchestrator,
        lambda: count_exports(cloud).total() >= 30,
        lambda: cloud.change(absent_roles=("Exporter",)),
    )
    (stop,) = result.blocked
    assert (stop.scope, stop.value) == (Scope.ROLE, "Exporter")
    assert result.counts[JobState.VERIFIED] >= 60
    refused = [entry for entry in read_ledger(cloud) if not entry.accepted]
    assert len(refused) <= 16 + 10  # in flight, and probes


async def test_unsupported_region_halts_only_its_jobs(
    orchestrator: Orchestrator, cloud: Simulator
) -> None:
    """A region that the endpoint does not support halts its jobs, and no others."""
    await orchestrator.enqueue(make_requests_for(make_image_ids(10), region="ap-atlantis"))
    result = await enqueue_and_run(orchestrator, make_requests_for(make_image_ids(4, first=10)))
    (stop,) = result.blocked
    assert (stop.scope, stop.value) == (Scope.REGION, "ap-atlantis")
    assert (result.counts[JobState.VERIFIED], result.counts[JobState.QUEUED]) == (4, 10)


@pytest.mark.parametrize(
    ("key", "codes"),
    [
        (replace(DEFAULT_KEY, secret_id="AKIDnobody"), {"AuthFailure.SecretIdNotFound"}),
        (replace(DEFAULT_KEY, secret_key="mistyped"), {"AuthFailure.SignatureFailure"}),
        # COS, which is asked before a second request, may refuse the token before CVM does
        (
            replace(DEFAULT_KEY, token="stale"),
            {"AuthFailure.TokenFailure", "InvalidAccessKeyId"},
        ),
    ],
)
async def test_wrong_key_halts_everything(
    open_store: OpenStore, cloud: Simulator, key: Key, codes: set[str]
) -> None:
    """Refused keys cause few requests, no accepted export and no charged attempt."""
    async with open_store(environ=make_credential_variables(key)) as orchestrator:
        await orchestrator.enqueue(make_requests_for(make_image_ids(30)))
        result = await enqueue_and_run(
            orchestrator, make_requests_for(make_image_ids(30, first=30), region="ap-tokyo")
        )
        assert {job.attempts for job in await read_jobs(orchestrator)} == {0}
    assert {stop.code for stop in result.blocked} <= codes
    assert {stop.scope for stop in result.blocked} == {Scope.CREDENTIAL}
    assert result.counts[JobState.QUEUED] == result.left == 60
    assert not count_exports(cloud)
    # a token that may have expired is asked for again, as is a refused description
    assert len(cloud.ledger) <= 12


async def test_key_refused_during_the_run_halts_sending(
    orchestrator: Orchestrator, cloud: Simulator
) -> None:
    """A revoked key halts sending when another job is refused some seconds later."""
    cloud.change(cap=4, duration=Duration(seconds=1))
    await orchestrator.enqueue(make_requests_for(make_image_ids(40)))
    result = await run_and_change(
        orchestrator,
        lambda: count_exports(cloud).total() >= 4,
        lambda: cloud.change(revoked=(DEFAULT_KEY.secret_id,)),
    )
    assert {stop.scope for stop in result.blocked} == {Scope.CREDENTIAL}
    assert result.counts[JobState.FAILED] == 0
    assert result.counts[JobState.ACCEPTED] + result.counts[JobState.VERIFIED] == sum(
        count_exports(cloud).values()
    )


async def test_second_denied_image_halts_the_account(
    orchestrator: Orchestrator, cloud: Simulator
) -> None:
    """A second image that CAM denies halts the account, and no job fails.

    A single denied image would fail alone.
    """
    forbidden = make_image_ids(2)
    cloud.change(
        codes=(Refusal("UnauthorizedOperation", images=tuple(forbidden)),),
        images={image: ImageSettings(sizes=(400,)) for image in forbidden},
    )
    result = await enqueue_and_run(orchestrator, make_requests_for(make_image_ids(20)))
    assert [stop.code for stop in result.blocked] == ["UnauthorizedOperation"]
    assert result.counts[JobState.FAILED] == 0
    assert await count_states(orchestrator, images=tuple(forbidden)) == {JobState.QUEUED: 2}


async def test_wrong_clock_is_corrected(open_store: OpenStore, cloud: Simulator) -> None:
    """A wrong clock is corrected by the server's time without an extra attempt.

    All images are exported.
    """
    cloud.change(skew=3600)
    async with open_store() as orchestrator:
        result = await enqueue_and_run(orchestrator, make_requests_for(make_image_ids(12)))
        assert {job.attempts for job in await read_jobs(orchestrator)} == {1}
    assert result.counts[JobState.VERIFIED] == 12
    assert result.blocked == ()
    assert count_exports(cloud) == once_each(make_image_ids(12))


async def test_clock_jump_during_the_run_is_corrected(
    orchestrator: Orchestrator, cloud: Simulator
) -> None:
    """Requests refused for their time are signed again with the server's time."""
    await enqueue_and_run(orchestrator, make_requests_for(make_image_ids(2)))
    await orchestrator.enqueue(make_requests_for(make_image_ids(12, first=2)))
    cloud.change(skew=-7200)
    result = await run_to_end(orchestrator)
    assert result.counts[JobState.VERIFIED] == 12
    assert count_exports(cloud) == once_each(make_image_ids(14))


async def test_expired_login_ends_the_run(
    open_store: OpenStore, cloud: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run ends and says so; after a new login the next run does the rest."""
    began_at = clock._since_boot

    def pass_time(seconds: float) -> None:
        """Let time pass on this machine and in the cloud."""
        monkeypatch.setattr(clock, "_since_boot", lambda: began_at() + timedelta(seconds=seconds))
        cloud.change(skew=seconds)

    cloud.change(cap=4, duration=Duration(seconds=2000))
    write_login_file(tmp_path, lasts=600)
    async with open_store(environ={}) as orchestrator:
        await orchestrator.enqueue(make_requests_for(make_image_ids(10)))
        result = await run_and_change(
            orchestrator,
            lambda: count_exports(cloud).total() == 4,
            lambda: pass_time(700),
        )
        assert [stop.scope for stop in result.blocked] == [Scope.CREDENTIAL]
        assert "tccli" in result.blocked[0].remedy
        assert (result.counts[JobState.ACCEPTED], result.left) == (4, 10)
        pass_time(2100)
        cloud.change(duration=Duration(seconds=0.2))
        write_login_file(tmp_path, lasts=2700)
        assert (await run_to_end(orchestrator)).counts[JobState.VERIFIED] == 10
    assert count_exports(cloud) == once_each(make_image_ids(10))


def write_login_file(home: Path, *, lasts: float) -> None:
    """Write the file that a login by tccli writes."""
    place = home / ".tccli" / "default.credential"
    place.parent.mkdir(exist_ok=True)
    key = {"secretId": DEFAULT_KEY.secret_id, "secretKey": DEFAULT_KEY.secret_key}
    place.write_text(json.dumps({**key, "expiresAt": time.time() + lasts}))


async def test_run_without_keys_ends_before_sending(
    open_store: OpenStore, cloud: Simulator
) -> None:
    """With jobs and without keys the run says so before anything is sent."""
    async with open_store(environ={}) as orchestrator:
        await orchestrator.enqueue(make_requests_for(make_image_ids(1)))
        with pytest.raises(CredentialError, match="No Tencent Cloud credentials"):
            await orchestrator.run()
        assert await count_states(orchestrator) == {JobState.QUEUED: 1}
    assert {entry.service for entry in cloud.ledger} == {"metadata"}


async def test_exports_go_on_without_describe_permission(
    open_store: OpenStore, cloud: Simulator
) -> None:
    """Without permission to describe, exports go on without sizes."""
    cloud.change(codes=(Refusal("UnauthorizedOperation", action="DescribeImages"),))
    said: list[str] = []
    async with open_store(notify=said.append) as orchestrator:
        result = await enqueue_and_run(orchestrator, make_requests_for(make_image_ids(5)))
    assert result.counts[JobState.VERIFIED] == 5
    assert result.blocked == ()
    assert sum("cvm:DescribeImages" in one for one in said) == 1
    assert len(read_ledger(cloud, "DescribeImages")) == 1


async def test_undescribed_image_is_verified_with_a_warning_when_reconciled(
    open_store: OpenStore, cloud: Simulator
) -> None:
    """An undescribed image is verified with a warning, and no export fails.

    The number of its objects is unknown.
    """
    cloud.change(
        codes=(Refusal("UnauthorizedOperation", action="DescribeImages"),),
        faults=(Fault("reset", action="ExportImages", after=True, times=1),),
    )
    async with open_store(export_deadline=1) as orchestrator:
        await enqueue_and_run(orchestrator, [make_multi_image_request(make_image_ids(2))])
        (job,) = await read_jobs(orchestrator)
    assert job.state is JobState.VERIFIED
    assert ["may not be all" in warning for warning in job.warnings] == [True]
    assert len(read_ledger(cloud)) == 1


async def test_unknown_image_fails_alone(orchestrator: Orchestrator, cloud: Simulator) -> None:
    """One unknown image fails, and the other 99 are described, sent and verified."""
    batch = make_image_ids(100)
    cloud.change(images={batch[37]: ImageSettings(missing=True)})
    result = await enqueue_and_run(orchestrator, make_requests_for(batch))
    assert (result.counts[JobState.VERIFIED], result.counts[JobState.FAILED]) == (99, 1)
    (failed,) = await read_jobs(orchestrator, states=("failed",))
    assert (failed.image_ids, failed.code) == ((batch[37],), "InvalidImageId.NotFound")
    assert len(read_ledger(cloud, "DescribeImages")) <= 16
    assert count_exports(cloud) == once_each(set(batch) - {batch[37]})
