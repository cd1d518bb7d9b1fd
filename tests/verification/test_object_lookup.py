"""Which objects under the keys of a job were written for it."""

from dataclasses import replace
from datetime import timedelta

import pytest

from orchestrator.model import ObjectFacts
from orchestrator.verification.object_lookup import is_own
from orchestrator.verification.tracked_jobs import TrackedKey
from tests.job_factory import NOON
from tests.verification.test_evidence import make_job

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
    """Another ETag than before shows it; the time does where the export certainly began."""
    job = replace(
        make_job(reconciled=reconciled), keys=(TrackedKey(KEY, True, baseline_etag=baseline),)
    )
    written = None if modified is None else NOON + modified * SECOND
    facts = ObjectFacts(KEY, 100, etag, written)
    assert is_own(job, facts, [NOON, NOON - SECOND]) is own


def test_an_object_under_the_tag_belongs_to_its_job() -> None:
    """Nobody else has the tag, whatever the time of the object."""
    facts = ObjectFacts(f"tag_{KEY}", 100, "etag", NOON - 100 * SECOND)
    assert is_own(make_job(reconciled=True), facts, [])
