"""A process stopped between claim and request: whenever it wakes, there is one export.

Leases and fences are short here, and the vendor's clock is put forward in place of waiting;
`make crash` sleeps for real, beyond the lease and the 300 s of the signature.
"""

import pytest

from orchestrator.job_states import JobState
from tests.crash.suspended_process import run_with_suspension

pytestmark = pytest.mark.anyio

EXPIRED = "AuthFailure.SignatureExpire"


async def test_a_sleeper_that_wakes_too_late_is_refused_by_the_vendor() -> None:
    """Its job was rescued and sent again; its own request bears an old signature and is refused."""
    night = await run_with_suspension(lease=1.5, fence=3, woken_by=JobState.VERIFIED)
    assert night.tally.holds, night.tally.figures()
    assert night.codes == [EXPIRED]
    first, second = night.story.attempts
    assert (first["code"], first["task_id"]) == (EXPIRED, None)
    assert (second["number"], second["task_id"]) == (2, str(night.story.job.task_id))
    kinds = [event["kind"] for event in night.story.events]
    middle = ["claimed", "rescued", "absent", "claimed", "accepted", "verified"]
    assert kinds == ["enqueued", *middle]


async def test_a_sleeper_that_wakes_in_time_settles_its_job() -> None:
    """Rescued but fenced, its job has not been sent again: its late TaskId settles it."""
    night = await run_with_suspension(lease=1.5, fence=60, woken_by=JobState.UNKNOWN)
    assert night.tally.holds, night.tally.figures()
    assert night.codes == []
    (attempt,) = night.story.attempts
    assert attempt["task_id"] == str(night.story.job.task_id)
    kinds = [event["kind"] for event in night.story.events]
    # a look may have found the export before its answer was kept, which then names its task
    told = [kind for kind in kinds if kind != "adopted"]
    assert told == ["enqueued", "claimed", "rescued", "late answer", "verified"]
