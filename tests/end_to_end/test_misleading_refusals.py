"""A refusal that contradicts what this run has seen is not believed at once."""

import pytest

from orchestrator.cli.exit_codes import exit_code_of_run
from orchestrator.cli.run import summary
from orchestrator.job_states import JobState
from orchestrator.limits import region_waits
from orchestrator.model import JobFilter, Scope
from orchestrator.orchestrator import Orchestrator
from orchestrator.simulator import Fault, Refusal, Simulator
from orchestrator.worker import image_describer
from tests.end_to_end.harness import (
    OpenStore,
    count_exports,
    enqueue_and_run,
    make_image_ids,
    make_requests_for,
    once_each,
    read_jobs,
    run_and_change,
    run_to_end,
)

pytestmark = pytest.mark.anyio

WINDOWS = "UnsupportedOperation.WindowsImageExportUnsupported"


@pytest.mark.parametrize(
    ("code", "most"),
    [("UnsupportedOperation.TooManyTasks", 1), ("UnsupportedOperation", 4), (WINDOWS, 4)],
)
async def test_cap_under_another_name_fails_few_jobs(
    open_store: OpenStore, cloud: Simulator, code: str, most: int
) -> None:
    """A cap that is reported with a permanent code is waited for like the cap."""
    cloud.change(cap=4, cap_code=code)
    said: list[str] = []
    images = make_image_ids(24)
    async with open_store(notify=said.append) as orchestrator:
        result = await enqueue_and_run(orchestrator, make_requests_for(images))
    assert result.counts[JobState.FAILED] <= most
    assert result.counts[JobState.VERIFIED] == 24 - result.counts[JobState.FAILED]
    assert max(count_exports(cloud).values()) == 1
    assert sum("several jobs were refused" in sentence for sentence in said) == 1


async def test_wrong_batch_ends_the_run_with_the_reason(
    open_store: OpenStore, cloud: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If nothing is accepted, the run ends soon and reports failed and untried jobs."""
    monkeypatch.setattr(region_waits, "_IDLE_REFUSALS", 1.0)
    cloud.change(codes=(Refusal(WINDOWS),))
    async with open_store() as orchestrator:
        result = await enqueue_and_run(orchestrator, make_requests_for(make_image_ids(40)))
        queued = await read_jobs(orchestrator, states=("queued",))
    assert (result.counts[JobState.FAILED], result.counts[JobState.QUEUED]) == (4, 36)
    assert exit_code_of_run(result) == 6
    (halt,) = result.blocked
    assert (halt.scope, halt.code) == (Scope.REGION, WINDOWS)
    assert any("Windows images cannot be exported" in line for line in summary(result))
    assert {job.reason for job in queued if job.code == WINDOWS} == {
        "refusal that may concern the region"
    }


async def test_wrong_images_keep_no_good_ones_from_being_exported(
    open_store: OpenStore, cloud: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many wrong images at the head of the queue only delay the good ones.

    At least four of the eight wrong images fail.
    """
    monkeypatch.setattr(region_waits, "_IDLE_REFUSALS", 20.0)
    wrong, good = make_image_ids(8), make_image_ids(20, first=8)
    cloud.change(codes=(Refusal(WINDOWS, images=tuple(wrong)),))
    async with open_store() as orchestrator:
        result = await enqueue_and_run(orchestrator, make_requests_for([*wrong, *good]))
    assert count_exports(cloud) == once_each(good)
    assert result.counts[JobState.VERIFIED] == 20
    assert result.counts[JobState.FAILED] >= 4


@pytest.mark.parametrize(
    "code",
    [
        "AuthFailure.SignatureFailure",
        "UnauthorizedOperation",
        "InvalidParameterValue.BucketNotFound",
        "InvalidImageId.NotFound",
    ],
)
async def test_passing_refusals_fail_and_halt_nothing(
    orchestrator: Orchestrator, cloud: Simulator, code: str
) -> None:
    """Every tenth request is refused, and every image is exported."""
    images = make_image_ids(60)
    await orchestrator.enqueue(make_requests_for(images))
    result = await run_and_change(
        orchestrator,
        lambda: bool(count_exports(cloud)),
        lambda: cloud.change(codes=(Refusal(code, chance=0.1),)),
    )
    assert result.blocked == ()
    assert result.counts[JobState.VERIFIED] == 60
    assert count_exports(cloud) == once_each(images)


async def test_refusals_of_shown_images_do_not_concern_their_region(
    open_store: OpenStore, cloud: Simulator
) -> None:
    """An image that is described but "not found" is tried again, as are the others."""
    cloud.change(codes=(Refusal("InvalidImageId.NotFound", times=8),))
    said: list[str] = []
    images = make_image_ids(8)
    async with open_store(notify=said.append) as orchestrator:
        result = await enqueue_and_run(orchestrator, make_requests_for(images))
    assert count_exports(cloud) == once_each(images)
    assert result.counts[JobState.VERIFIED] == 8
    assert said == []


@pytest.mark.parametrize(
    "code",
    [
        "LimitExceeded",
        "ResourceInsufficient",
        "AuthFailure.SignatureFailure",
        "AuthFailure.TokenFailure",
        "UnauthorizedOperation.CamNoAuth",
        "InvalidAction",
        "UnsupportedRegion",
        "UnsupportedOperation",
        "InternalError",
        "RequestLimitExceeded",
    ],
)
async def test_refused_descriptions_stop_no_export(
    open_store: OpenStore, cloud: Simulator, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    """If DescribeImages is refused, jobs are sent without it and with one warning."""
    monkeypatch.setattr(image_describer, "_GIVE_UP_AFTER", 1.0)
    cloud.change(codes=(Refusal(code, action="DescribeImages"),))
    said: list[str] = []
    images = make_image_ids(12)
    async with open_store(notify=said.append) as orchestrator:
        result = await enqueue_and_run(orchestrator, make_requests_for(images))
    assert result.counts[JobState.VERIFIED] == len(images)
    assert count_exports(cloud) == once_each(images)
    assert (exit_code_of_run(result), result.blocked) == (0, ())
    assert sum("Jobs are sent without sizes" in sentence for sentence in said) == 1
    assert not any("waiting for this quota" in sentence for sentence in said)


@pytest.mark.parametrize(
    "fault", [Fault("gateway", status=500), Fault("html"), Fault("redirect"), Fault("bare")]
)
async def test_descriptions_without_an_answer_of_the_api_stop_no_export(
    open_store: OpenStore, cloud: Simulator, monkeypatch: pytest.MonkeyPatch, fault: Fault
) -> None:
    """Another action shows the server's time, without which nothing is sent."""
    monkeypatch.setattr(image_describer, "_GIVE_UP_AFTER", 1.0)
    broken = Fault(fault.kind, status=fault.status, action="DescribeImages")
    cloud.change(skew=1000, faults=(broken,))
    said: list[str] = []
    images = make_image_ids(6)
    async with open_store(notify=said.append) as orchestrator:
        result = await enqueue_and_run(orchestrator, make_requests_for(images))
    assert count_exports(cloud) == once_each(images)
    assert (exit_code_of_run(result), result.blocked) == (0, ())
    assert sum("Jobs are sent without sizes" in sentence for sentence in said) == 1


async def test_descriptions_of_nothing_stop_no_export(
    open_store: OpenStore, cloud: Simulator
) -> None:
    """An empty description is told once, and each image is exported."""
    cloud.change(describe="nothing")
    said: list[str] = []
    images = make_image_ids(6)
    async with open_store(notify=said.append) as orchestrator:
        result = await enqueue_and_run(orchestrator, make_requests_for(images))
    assert count_exports(cloud) == once_each(images)
    assert exit_code_of_run(result) == 0
    assert sum("shows none of the images" in sentence for sentence in said) == 1


@pytest.mark.parametrize(
    "code", ["InvalidParameterValue.InvalidImageState", "InvalidParameterValue", WINDOWS]
)
async def test_refusal_of_an_export_that_began_exports_nothing_twice(
    orchestrator: Orchestrator, cloud: Simulator, code: str
) -> None:
    """An export that a refused request began is found before the next request.

    This also holds after an operator's retry.
    """
    images = make_image_ids(8)
    cloud.change(
        codes=(Refusal(code, after=True, times=3),), accept_busy_images=True, queue_delay=0
    )
    await enqueue_and_run(orchestrator, make_requests_for(images))
    await orchestrator.retry(JobFilter())
    result = await run_to_end(orchestrator)
    assert count_exports(cloud) == once_each(images)
    assert {job.state for job in await read_jobs(orchestrator)} == {JobState.VERIFIED}
    assert result.counts[JobState.FAILED] == 0
