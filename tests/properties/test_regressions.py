"""Short histories that once lost or doubled an export."""

import pytest

from orchestrator.job_queue.orphan_recovery import recover_orphans
from orchestrator.job_states import JobState
from orchestrator.model import NOT_SENT
from orchestrator.operations import retry
from orchestrator.store.tables import jobs
from orchestrator.verification.delivery_check import Finding, save_findings
from orchestrator.verification.evidence import Evidence
from orchestrator.verification.unknown_jobs import AbsenceTracker, look_up_unknown_job
from orchestrator.worker.pre_send_check import check_before_send
from tests.job_factory import (
    LEASE_DURATION,
    SETTINGS,
    TESTER,
    advance_time,
    claim_one,
    make_jobs,
    make_request,
    make_traced_job,
    now,
    read_job,
    read_last_attempt,
    update_job,
)
from tests.store_and_cloud import StoreAndCloud, ignore_refusal, make_bucket_access

pytestmark = pytest.mark.anyio


async def test_late_request_has_time_to_become_visible(setup: StoreAndCloud) -> None:
    """An export that is sent as its signature expires is found 120 s later."""
    (job_id,) = await make_jobs(setup.database)
    await claim_one(setup.database, owner="sleeper")
    await advance_time(setup.database, seconds=LEASE_DURATION.total_seconds() + 1)
    assert await recover_orphans(setup.database, "rescuer") == 1
    for seconds in (0, 290, 100):
        await advance_time(setup.database, seconds=seconds)
        seen = await setup.tracked_job(job_id)
        state = await look_up_unknown_job(
            setup.database, setup.cos, setup.trust, seen, SETTINGS, setup.absence, actor="rescuer"
        )
        assert state is JobState.UNKNOWN
    # it left 299 s after it was signed
    await setup.export_without_answer(job_id)
    seen = await setup.tracked_job(job_id)
    state = await look_up_unknown_job(
        setup.database, setup.cos, setup.trust, seen, SETTINGS, setup.absence, actor="rescuer"
    )
    assert state is JobState.ACCEPTED


@pytest.mark.parametrize("become", [JobState.ACCEPTED, JobState.VERIFIED])
async def test_lost_lease_reconciles_nothing(setup: StoreAndCloud, become: JobState) -> None:
    """A process resumes before its lookup, after others have found the job's export."""
    (job_id,) = await make_jobs(setup.database)
    await update_job(setup.database, job_id, maybe_applied=True)
    lease = await claim_one(setup.database, owner="sleeper")
    await advance_time(setup.database, seconds=LEASE_DURATION.total_seconds() + 1)
    await recover_orphans(setup.database, "rescuer")
    await setup.export_without_answer(job_id)
    await update_job(setup.database, job_id, state=become)
    before = await read_job(setup.database, job_id)
    assert not await check_before_send(
        setup.database, setup.cos, make_bucket_access(), lease, SETTINGS, ignore_refusal
    )
    assert await read_job(setup.database, job_id) == before
    assert (await read_last_attempt(setup.database, job_id)).code == NOT_SENT


async def test_lost_lease_sends_nothing(setup: StoreAndCloud) -> None:
    """If its job has become unknown, an empty lookup does not permit sending."""
    (job_id,) = await make_jobs(setup.database)
    await update_job(setup.database, job_id, maybe_applied=True)
    lease = await claim_one(setup.database, owner="sleeper")
    await advance_time(setup.database, seconds=LEASE_DURATION.total_seconds() + 1)
    await recover_orphans(setup.database, "rescuer")
    assert not await check_before_send(
        setup.database, setup.cos, make_bucket_access(), lease, SETTINGS, ignore_refusal
    )
    assert (await read_job(setup.database, job_id)).state == JobState.UNKNOWN


async def test_lookup_from_before_a_retry_changes_nothing(setup: StoreAndCloud) -> None:
    """A look-up from before a retry does not change the job.

    Another process failed the job after the look-up, and an operator retried it.
    """
    await make_traced_job(setup.database)
    (job_id,) = await make_jobs(setup.database, [make_request(2)])
    await claim_one(setup.database, owner="dead")
    await advance_time(setup.database, seconds=LEASE_DURATION.total_seconds() + 400)
    await recover_orphans(setup.database, "rescuer")
    await update_job(
        setup.database, job_id, attempts_charged=SETTINGS.max_attempts, no_resend_before=None
    )
    absence = AbsenceTracker(setup.database.clock)
    for tracker in (setup.absence, absence):
        before = await setup.tracked_job(job_id)
        await look_up_unknown_job(
            setup.database, setup.cos, setup.trust, before, SETTINGS, tracker, actor="rescuer"
        )
    await advance_time(setup.database, seconds=121)
    seen = await setup.tracked_job(job_id)
    assert (
        await look_up_unknown_job(
            setup.database, setup.cos, setup.trust, seen, SETTINGS, setup.absence, actor="rescuer"
        )
        is JobState.FAILED
    )
    await retry(setup.database, jobs.c.id == job_id, actor="person")
    assert (
        await look_up_unknown_job(
            setup.database, setup.cos, setup.trust, seen, SETTINGS, absence, actor="sleeper"
        )
        is JobState.UNKNOWN
    )
    assert (await read_job(setup.database, job_id)).state == JobState.UNKNOWN


async def test_finding_from_before_a_retry_changes_nothing(setup: StoreAndCloud) -> None:
    """A finding from before a retry does not change the job.

    The old finding says that the export is lost. After the retry the export was found, and it
    still runs.
    """
    (job_id,) = await make_jobs(setup.database)
    await claim_one(setup.database)
    begun = await now(setup.database)
    runs = {"state": JobState.ACCEPTED, "owner": None, "expires_at": None, "accepted_at": begun}
    await update_job(setup.database, job_id, **runs)
    lost = Finding(await setup.tracked_job(job_id), Evidence(missing=("a key",)), JobState.FAILED)
    assert await save_findings(setup.database, "another", [lost]) == [JobState.FAILED]
    await retry(setup.database, jobs.c.id == job_id, actor="person")
    await setup.export_without_answer(job_id)
    await advance_time(setup.database, seconds=1)
    seen = await setup.tracked_job(job_id)
    assert (
        await look_up_unknown_job(
            setup.database, setup.cos, setup.trust, seen, SETTINGS, setup.absence, actor=TESTER
        )
        is JobState.ACCEPTED
    )
    assert await save_findings(setup.database, "sleeper", [lost]) == [JobState.ACCEPTED]
    assert (await read_job(setup.database, job_id)).state == JobState.ACCEPTED
