"""Quotas other than the export cap: waited for, told, and given up after a while."""

import pytest

from orchestrator.cli.run_outcome import exit_code, summary
from orchestrator.job_states import JobState
from orchestrator.simulator import Refusal, Simulator
from tests.end_to_end.harness import (
    OpenStore,
    count_exports,
    enqueue_and_run,
    make_image_ids,
    make_requests_for,
    once_each,
    read_jobs,
    run_to_end,
)

pytestmark = pytest.mark.anyio

QUOTA = "LimitExceeded.BucketQuota"
WAIT = 1.5


@pytest.mark.parametrize("code", [QUOTA, "LimitExceeded", "ResourceInsufficient.Disk"])
async def test_a_quota_that_is_never_freed_ends_the_run(
    open_store: OpenStore, cloud: Simulator, code: str
) -> None:
    """After its time the run ends with 5 and the reason; nothing failed, nothing is lost."""
    cloud.change(codes=(Refusal(code),))
    said: list[str] = []
    async with open_store(quota_wait=WAIT, notify=said.append) as orchestrator:
        result = await enqueue_and_run(orchestrator, make_requests_for(make_image_ids(3)))
        found = await read_jobs(orchestrator)
    assert exit_code(result) == 5
    assert result.counts[JobState.QUEUED] == result.left == 3
    assert {job.attempts for job in found} == {0}
    assert any(job.reason == "quota" and job.code == code and job.remedy for job in found)
    assert any("waiting for this quota" in sentence and code in sentence for sentence in said)
    assert any("Given up for now" in line and code in line for line in summary(result))


async def test_a_quota_that_is_freed_is_waited_for(open_store: OpenStore, cloud: Simulator) -> None:
    """A quota that is free again in time costs nothing but the wait, which is told."""
    cloud.change(codes=(Refusal(QUOTA, times=1),))
    said: list[str] = []
    async with open_store(quota_wait=30, notify=said.append) as orchestrator:
        result = await enqueue_and_run(orchestrator, make_requests_for(make_image_ids(3)))
    assert exit_code(result) == 0
    assert count_exports(cloud) == once_each(make_image_ids(3))
    assert [sentence for sentence in said if "accepted again" in sentence]


async def test_the_export_cap_is_waited_for_without_end(
    open_store: OpenStore, cloud: Simulator
) -> None:
    """The cap is freed by exports that end: a run that only waits for it is never given up."""
    cloud.change(cap=1)
    async with open_store(quota_wait=0) as orchestrator:
        result = await enqueue_and_run(orchestrator, make_requests_for(make_image_ids(4)))
    assert exit_code(result) == 0


async def test_another_region_goes_on(open_store: OpenStore, cloud: Simulator) -> None:
    """A quota of one region holds up that region alone."""
    held, free = make_image_ids(2), make_image_ids(2, first=2)
    cloud.change(codes=(Refusal(QUOTA, images=tuple(held)),))
    async with open_store(quota_wait=WAIT) as orchestrator:
        await orchestrator.enqueue(make_requests_for(held))
        await orchestrator.enqueue(make_requests_for(free, region="ap-tokyo"))
        result = await run_to_end(orchestrator)
    assert count_exports(cloud) == once_each(free)
    assert (exit_code(result), result.left) == (5, 2)
