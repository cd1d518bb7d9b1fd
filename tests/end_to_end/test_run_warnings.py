"""Warnings of a run against a vendor that differs, as a person reads them."""

from datetime import timedelta

import anyio
import pytest

from orchestrator.cli import progress
from orchestrator.cli.run import summary
from orchestrator.job_states import JobState
from orchestrator.limits import answer_warnings
from orchestrator.simulator import BucketSettings, Duration, Fault, Refusal, Simulator
from orchestrator.verification import bucket_warnings
from orchestrator.worker import maintenance
from tests.end_to_end.harness import (
    BUCKET,
    OpenStore,
    count_exports,
    enqueue_and_run,
    make_image_ids,
    make_requests_for,
    once_each,
    read_ledger,
    run_and_stop_when,
    run_to_end,
    wait_until,
    wait_until_stored,
)

pytestmark = pytest.mark.anyio

EXPORT = "ExportImages"


async def test_unclear_answers_of_exports_that_began_do_not_slow_the_run(
    open_store: OpenStore, cloud: Simulator
) -> None:
    """If answers lack a TaskId, each image is still exported once and verified.

    Each export begins although its answer has no TaskId.
    """
    cloud.set_faults(Fault("no-task-id", action=EXPORT))
    images = make_image_ids(60)
    said: list[str] = []
    async with open_store(notify=said.append) as orchestrator:
        result = await enqueue_and_run(orchestrator, make_requests_for(images))
    assert result.counts[JobState.VERIFIED] == len(images)
    assert count_exports(cloud) == once_each(images)
    assert len([sentence for sentence in said if "cannot be used" in sentence]) == 1
    assert not any("is failing" in sentence for sentence in said)


async def test_a_repeated_redirect_is_warned_of_and_shown_by_status(
    open_store: OpenStore, cloud: Simulator
) -> None:
    """The warning about a repeated redirect names the status and the target."""
    cloud.set_faults(Fault("redirect", action=EXPORT, times=3))
    said: list[str] = []
    async with open_store(notify=said.append, concurrency=1) as orchestrator:
        await orchestrator.enqueue(make_requests_for(make_image_ids(2)))
        await run_and_stop_when(orchestrator, lambda: len(said) > 0)
        (stored,) = (await orchestrator.status()).warnings
        assert said == [f"Warning: {stored.message}"]
        assert "HTTP 30" in stored.message
        assert "redirect to " in stored.message


async def test_status_shows_what_has_halted_the_last_run(
    open_store: OpenStore, cloud: Simulator
) -> None:
    """The reason stays until the next run, which finds out whether it still holds."""
    cloud.change(codes=(Refusal("AuthFailure.UnauthorizedOperation"),))
    async with open_store() as orchestrator:
        result = await enqueue_and_run(orchestrator, make_requests_for(make_image_ids(3)))
        assert result.needs_action
        assert result.warnings == ()
        (stored,) = (await orchestrator.status()).warnings
        assert "AuthFailure.UnauthorizedOperation" in stored.message
        assert "cvm:ExportImages" in stored.message
        cloud.change(codes=())
        await orchestrator.run()
        assert not (await orchestrator.status()).warnings


async def test_what_a_run_waits_for_is_named_again_in_progress_and_result(
    open_store: OpenStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Progress and result repeat the warning about what the run waits for.

    A user who looks at a run after hours no longer sees the first warning.
    """
    monkeypatch.setattr(progress, "_LINE_SECONDS", 0.01)
    said, shown = list[str](), ""

    def is_shown() -> bool:
        nonlocal shown
        shown += capsys.readouterr().err
        return "; warning: 127.0.0.1:1 cannot be reached (127.0.0.1:1: Connection" in shown

    async with open_store(cvm_endpoint="http://127.0.0.1:1", notify=said.append) as orchestrator:
        await orchestrator.enqueue(make_requests_for(make_image_ids(1)))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(progress.ProgressDisplay(None).show, orchestrator)
            result = await run_and_stop_when(orchestrator, is_shown)
            tasks.cancel_scope.cancel()
    (message,) = result.warnings
    assert said == [f"Warning: {message}"]
    _, _, *last = summary(result)
    assert last == [f"Warning: {message}", "1 job left: run again to continue."]


async def test_a_region_that_accepts_nothing_is_warned_of(
    open_store: OpenStore, cloud: Simulator
) -> None:
    """After ten refusals in a row a warning names the last one; the run goes on."""
    cloud.change(codes=(Refusal("ResourceInUse"),))
    said: list[str] = []
    async with open_store(notify=said.append) as orchestrator:
        await orchestrator.enqueue(make_requests_for(make_image_ids(12)))
        await run_and_stop_when(orchestrator, lambda: len(read_ledger(cloud)) > 12)
        (stored,) = (await orchestrator.status()).warnings
    assert said == [f"Warning: {stored.message}"]
    assert "has accepted nothing in this run (last answer: ResourceInUse" in stored.message


async def test_a_region_that_accepts_nothing_any_more_is_warned_of_until_it_does(
    open_store: OpenStore, cloud: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The warning about a full region ends when the region accepts exports again.

    Other users fill the region after the first exports of this run.
    """
    monkeypatch.setattr(answer_warnings, "_MANY", 3)
    monkeypatch.setattr(answer_warnings, "_LONG", 0.5)
    said: list[str] = []
    images = make_image_ids(12)
    async with open_store(notify=said.append, concurrency=1) as orchestrator:

        async def is_stored() -> bool:
            return bool((await orchestrator.status()).warnings)

        await orchestrator.enqueue(make_requests_for(images))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run_to_end, orchestrator)
            await wait_until(lambda: bool(count_exports(cloud)))
            cloud.change(cap=0)
            await wait_until_stored(is_stored)
            (stored,) = (await orchestrator.status()).warnings
            cloud.change(cap=None)
        assert (await orchestrator.status()).warnings == ()
    assert said == [f"Warning: {stored.message}"]
    assert "has accepted nothing for 0 min" in stored.message
    assert "No export of this store is running there" in stored.message
    assert count_exports(cloud) == once_each(images)


async def test_overdue_exports_are_warned_of_while_the_run_goes_on(
    open_store: OpenStore, cloud: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A warning says that no export shows in the bucket; it ends when one shows."""
    monkeypatch.setattr(maintenance, "_BUCKET_INTERVAL", 0.1)
    monkeypatch.setattr(bucket_warnings, "_NO_TRACE_AFTER", timedelta(seconds=0.3))
    cloud.change(queue_delay=2.0, duration=Duration(seconds=3))
    said: list[str] = []
    async with open_store(notify=said.append) as orchestrator:
        result = await enqueue_and_run(orchestrator, make_requests_for(make_image_ids(2)))
        assert (await orchestrator.status()).warnings == ()
    assert result.counts[JobState.VERIFIED] == 2
    (sentence,) = said
    assert "none of 2 accepted exports has left an upload or an object" in sentence


async def test_status_repeats_why_a_bucket_cannot_be_read(
    open_store: OpenStore, cloud: Simulator
) -> None:
    """`status` says why a bucket cannot be read, even after a short run.

    The run ended before the first regular check of the buckets.
    """
    looks = ("GetBucket", "ListMultipartUploads", "HeadObject", "HeadBucket")
    cloud.change(buckets={BUCKET: BucketSettings(deny=looks)})
    cloud.set_faults(Fault("reset", action=EXPORT, after=True))
    async with open_store() as orchestrator:
        result = await enqueue_and_run(orchestrator, make_requests_for(make_image_ids(1)))
        warnings = (await orchestrator.status()).warnings
    assert result.counts[JobState.UNKNOWN] == 1
    assert any(f"{BUCKET} cannot be read" in warning.message for warning in warnings)
