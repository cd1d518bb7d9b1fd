"""Quotas other than the export cap: the run waits, says so, and gives up after a limit."""

import pytest

from orchestrator.cli.exit_codes import exit_code_of_run
from orchestrator.cli.run import summary
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
async def test_quota_that_never_frees_ends_the_run(
    open_store: OpenStore, cloud: Simulator, code: str
) -> None:
    """After the limit the run ends with 5 and the reason; no job is failed or lost."""
    cloud.change(codes=(Refusal(code),))
    said: list[str] = []
    async with open_store(quota_wait=WAIT, notify=said.append) as orchestrator:
        result = await enqueue_and_run(orchestrator, make_requests_for(make_image_ids(3)))
        found = await read_jobs(orchestrator)
    assert exit_code_of_run(result) == 5
    assert result.counts[JobState.QUEUED] == result.left == 3
    assert {job.attempts for job in found} == {0}
    assert any(job.reason == "quota" and job.code == code and job.remedy for job in found)
    assert any("waiting for this quota" in sentence and code in sentence for sentence in said)
    assert any("Given up for now" in line and code in line for line in summary(result))


async def test_quota_that_frees_is_waited_for(open_store: OpenStore, cloud: Simulator) -> None:
    """A quota that is free again in time costs only the wait, which is reported."""
    cloud.change(codes=(Refusal(QUOTA, times=1),))
    said: list[str] = []
    async with open_store(quota_wait=30, notify=said.append) as orchestrator:
        result = await enqueue_and_run(orchestrator, make_requests_for(make_image_ids(3)))
    assert exit_code_of_run(result) == 0
    assert count_exports(cloud) == once_each(make_image_ids(3))
    assert [sentence for sentence in said if "accepted again" in sentence]


async def test_export_cap_is_waited_for_without_limit(
    open_store: OpenStore, cloud: Simulator
) -> None:
    """Ending exports free the cap: a run that waits only for it never gives up."""
    cloud.change(cap=1)
    async with open_store(quota_wait=0) as orchestrator:
        result = await enqueue_and_run(orchestrator, make_requests_for(make_image_ids(4)))
    assert exit_code_of_run(result) == 0


async def test_quota_of_one_region_does_not_affect_another(
    open_store: OpenStore, cloud: Simulator
) -> None:
    """A quota of one region delays only that region."""
    held, free = make_image_ids(2), make_image_ids(2, first=2)
    cloud.change(codes=(Refusal(QUOTA, images=tuple(held)),))
    async with open_store(quota_wait=WAIT) as orchestrator:
        await orchestrator.enqueue(make_requests_for(held))
        await orchestrator.enqueue(make_requests_for(free, region="ap-tokyo"))
        result = await run_to_end(orchestrator)
    assert count_exports(cloud) == once_each(free)
    assert (exit_code_of_run(result), result.left) == (5, 2)
