"""Histories that once broke the promise, each as short as it can be told."""

from datetime import timedelta

import pytest

from orchestrator.job_queue.orphan_recovery import recover_orphans
from orchestrator.job_states import JobState
from orchestrator.model import NOT_SENT
from orchestrator.operations.retry import retry
from orchestrator.store.tables import jobs
from orchestrator.verification.accepted_jobs import Finding, save_findings
from orchestrator.verification.completeness import Completeness
from orchestrator.verification.resend_policy import ResolvePolicy
from orchestrator.verification.unknown_jobs import AbsenceTracker, resolve
from orchestrator.worker.pre_send_check import check_before_send
from tests.bench import Bench, permissions
from tests.stores import (
    DEADLINE,
    LASTS,
    ME,
    change,
    claimed,
    job,
    last_attempt,
    let_pass,
    make_jobs,
    make_traced,
    now,
    request,
)

pytestmark = pytest.mark.anyio

POLICY = ResolvePolicy(timedelta(seconds=120), 5, DEADLINE)


async def test_what_a_sleeper_sends_last_has_its_time_to_be_seen(bench: Bench) -> None:
    """Sent as its signature expires, an export that shows two minutes later is not doubled."""
    (job_id,) = await make_jobs(bench.database)
    await claimed(bench.database, owner="sleeper")
    await let_pass(bench.database, seconds=LASTS.total_seconds() + 1)
    assert await recover_orphans(bench.database, "rescuer") == 1
    for seconds in (0, 290, 100):
        await let_pass(bench.database, seconds=seconds)
        seen = await bench.watched(job_id)
        state = await resolve(bench.database, bench.cos, seen, POLICY, bench.absence, "rescuer")
        assert state is JobState.UNKNOWN
    # it left 299 s after it was signed
    await bench.export_unseen(job_id)
    seen = await bench.watched(job_id)
    state = await resolve(bench.database, bench.cos, seen, POLICY, bench.absence, "rescuer")
    assert state is JobState.ACCEPTED


@pytest.mark.parametrize("become", [JobState.ACCEPTED, JobState.VERIFIED])
async def test_a_lease_that_was_lost_adopts_nothing(bench: Bench, become: JobState) -> None:
    """A sleeper wakes before its look, when others have found its job's export long ago."""
    (job_id,) = await make_jobs(bench.database)
    await change(bench.database, job_id, maybe_applied=True)
    lease = await claimed(bench.database, owner="sleeper")
    await let_pass(bench.database, seconds=LASTS.total_seconds() + 1)
    await recover_orphans(bench.database, "rescuer")
    await bench.export_unseen(job_id)
    await change(bench.database, job_id, state=become)
    before = await job(bench.database, job_id)
    assert not await check_before_send(bench.database, bench.cos, permissions(), lease, POLICY)
    assert await job(bench.database, job_id) == before
    assert (await last_attempt(bench.database, job_id)).code == NOT_SENT


async def test_a_lease_that_was_lost_sends_nothing(bench: Bench) -> None:
    """Where its job is unknown by now, a look that finds nothing clears nothing."""
    (job_id,) = await make_jobs(bench.database)
    await change(bench.database, job_id, maybe_applied=True)
    lease = await claimed(bench.database, owner="sleeper")
    await let_pass(bench.database, seconds=LASTS.total_seconds() + 1)
    await recover_orphans(bench.database, "rescuer")
    assert not await check_before_send(bench.database, bench.cos, permissions(), lease, POLICY)
    assert (await job(bench.database, job_id)).state == JobState.UNKNOWN


async def test_a_look_from_before_a_retry_ends_nothing(bench: Bench) -> None:
    """A sleeper has looked, others give the job up, and a person tries again before it wakes."""
    await make_traced(bench.database)
    (job_id,) = await make_jobs(bench.database, [request(2)])
    await claimed(bench.database, owner="dead")
    await let_pass(bench.database, seconds=LASTS.total_seconds() + 400)
    await recover_orphans(bench.database, "rescuer")
    await change(
        bench.database, job_id, attempts_charged=POLICY.max_attempts, no_resend_before=None
    )
    absence = AbsenceTracker(bench.database.clock)
    for tracker in (bench.absence, absence):
        before = await bench.watched(job_id)
        await resolve(bench.database, bench.cos, before, POLICY, tracker, "rescuer")
    await let_pass(bench.database, seconds=121)
    seen = await bench.watched(job_id)
    assert (
        await resolve(bench.database, bench.cos, seen, POLICY, bench.absence, "rescuer")
        is JobState.FAILED
    )
    await retry(bench.database, jobs.c.id == job_id, actor="person")
    assert (
        await resolve(bench.database, bench.cos, seen, POLICY, absence, "sleeper")
        is JobState.UNKNOWN
    )
    assert (await job(bench.database, job_id)).state == JobState.UNKNOWN


async def test_a_finding_from_before_a_retry_ends_nothing(bench: Bench) -> None:
    """A sleeper held it for lost, and so did others; tried again it was found, and still runs."""
    (job_id,) = await make_jobs(bench.database)
    await claimed(bench.database)
    begun = await now(bench.database)
    runs = {"state": JobState.ACCEPTED, "owner": None, "expires_at": None, "accepted_at": begun}
    await change(bench.database, job_id, **runs)
    lost = Finding(await bench.watched(job_id), Completeness((), (), ("a key",)))
    assert await save_findings(bench.database, "another", [lost]) == [JobState.FAILED]
    await retry(bench.database, jobs.c.id == job_id, actor="person")
    await bench.export_unseen(job_id)
    await let_pass(bench.database, seconds=1)
    seen = await bench.watched(job_id)
    assert (
        await resolve(bench.database, bench.cos, seen, POLICY, bench.absence, ME)
        is JobState.ACCEPTED
    )
    assert await save_findings(bench.database, "sleeper", [lost]) == [JobState.ACCEPTED]
    assert (await job(bench.database, job_id)).state == JobState.ACCEPTED
