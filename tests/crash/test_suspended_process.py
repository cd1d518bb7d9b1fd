"""A process that is suspended between claim and request: there is always exactly one export.

Leases and signature lifetimes are short here, and the vendor's clock is advanced instead of
waiting; `make crash` really waits, beyond the lease and the 300 s of the signature.
"""

import pytest

from orchestrator.job_states import JobState
from tests.crash.suspended_process import run_with_suspension

pytestmark = pytest.mark.anyio

EXPIRED = "AuthFailure.SignatureExpire"


async def test_late_request_of_a_suspended_process_is_refused() -> None:
    """Its job was recovered and sent again; its own request has an expired signature."""
    result = await run_with_suspension(lease=1.5, signature_lifetime=3, resume_at=JobState.VERIFIED)
    assert result.counts.holds, result.counts.figures()
    assert result.codes == [EXPIRED]
    first, second = result.details.attempts
    assert (first["code"], first["task_id"]) == (EXPIRED, None)
    assert (second["number"], second["task_id"]) == (2, str(result.details.job.task_id))
    # on a slow machine the bucket may be proven only after the first look-ups
    kinds = [e["kind"] for e in result.details.events if e["kind"] != "not resent"]
    middle = ["claimed", "recovered", "absent", "claimed", "accepted", "verified"]
    assert kinds == ["enqueued", *middle]


async def test_late_answer_of_a_suspended_process_resolves_its_job() -> None:
    """Its job is unknown and not yet sent again: the late TaskId resolves it."""
    result = await run_with_suspension(lease=1.5, signature_lifetime=60, resume_at=JobState.UNKNOWN)
    assert result.counts.holds, result.counts.figures()
    assert result.codes == []
    (attempt,) = result.details.attempts
    assert attempt["task_id"] == str(result.details.job.task_id)
    kinds = [event["kind"] for event in result.details.events]
    # a look-up may find the export before the answer is recorded, which then adds the TaskId
    told = [kind for kind in kinds if kind != "reconciled"]
    assert told == ["enqueued", "claimed", "recovered", "late answer", "verified"]
