"""Which objects under the keys of a job were written for it, and as which read shows them."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from orchestrator.cloud.clock_skew import TOLERATED_DRIFT
from orchestrator.model import ObjectFacts
from orchestrator.verification.delivery_lookup import DeliveryLookup
from orchestrator.verification.object_lookup import head_or_listed, is_own
from orchestrator.verification.tracked_jobs import TrackedKey
from tests.job_factory import BUCKET, NOON, REGION, make_job
from tests.store_and_cloud import StoreAndCloud, make_trust
from tests.verification.test_evidence import make_job as make_tracked_job

KEY = "img-00000001_system_snap-1.raw"
SECOND = timedelta(seconds=1)


@pytest.mark.parametrize(
    ("baseline", "etag", "modified", "reconciled", "own"),
    [
        ("", "new", -100, False, True),
        ("old", "new", -100, True, True),
        ("old", "old", 100, False, True),
        ("old", "old", 100, True, False),
        ("old", "old", 5, False, False),
        ("old", "old", None, False, False),
        (None, "new", 0, False, True),
        (None, "new", 0, True, False),
        (None, "new", -1, False, None),
        (None, "new", -100, False, False),
        (None, "new", None, False, None),
    ],
)
def test_an_object_without_the_tag_must_have_been_written_after_the_request(
    baseline: str | None, etag: str, modified: int | None, reconciled: bool, own: bool | None
) -> None:
    """An untagged object counts only if its ETag has changed or its time is later.

    The time must be later than the request, and counts only if the export certainly began.
    """
    job = replace(
        make_tracked_job(reconciled=reconciled),
        keys=(TrackedKey(KEY, True, baseline_etag=baseline),),
    )
    written = None if modified is None else NOON + modified * SECOND
    facts = ObjectFacts(KEY, 100, etag, written)
    assert is_own(job, facts, [NOON, NOON - SECOND]) is own


def test_an_object_under_the_tag_belongs_to_its_job() -> None:
    """Nobody else has the tag, whatever the time of the object."""
    facts = ObjectFacts(f"tag_{KEY}", 100, "etag", NOON - 100 * SECOND)
    assert is_own(make_tracked_job(reconciled=True), facts, [])


@pytest.mark.anyio
@pytest.mark.parametrize("changed", [{}, {"size": 7}, {"etag": "other"}])
async def test_head_that_disagrees_with_the_listing_does_not_count(
    setup: StoreAndCloud, changed: dict[str, Any]
) -> None:
    """If HEAD and the listing disagree, the listing counts.

    A listing names its bucket and prefix, but a HEAD may get the answer to another request.
    """
    job_id = await make_job(setup.database)
    await setup.export_without_answer(job_id)
    setup.finish_exports()
    (listed, *_) = await setup.cos.list_objects(REGION, BUCKET, "")
    head = await setup.cos.head_object(REGION, BUCKET, listed.key)
    job, shown = await setup.tracked_job(job_id), replace(listed, **changed)
    assert await head_or_listed(setup.cos, job, listed.key, None) == head
    found = await head_or_listed(setup.cos, job, listed.key, shown)
    assert found == (shown if changed else head)


@pytest.mark.anyio
@pytest.mark.parametrize(("key", "age"), [(KEY, None), (f"tag_{KEY}", timedelta(hours=1))])
async def test_only_a_tagged_object_is_a_trace_of_its_job(
    setup: StoreAndCloud, key: str, age: timedelta | None
) -> None:
    """Only an object under the job's tag counts as a trace.

    An object under another key does not show how soon tagged objects become visible.
    """
    clocks = [NOON + timedelta(hours=1) + TOLERATED_DRIFT]
    lookup = DeliveryLookup(setup.cos, make_trust(), make_tracked_job(), timedelta(), clocks)
    assert lookup.trace_age({key: ObjectFacts(key, 100, "etag", NOON)}, []) == age
