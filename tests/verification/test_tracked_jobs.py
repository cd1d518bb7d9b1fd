"""Which objects must be there before a job counts as verified."""

from dataclasses import replace
from typing import Any

import pytest

from orchestrator.job_states import JobState
from orchestrator.model import ImageFormat
from orchestrator.verification.tracked_jobs import TrackedJob, TrackedKey
from tests.job_factory import BUCKET, NOON, PROFILE, REGION

NAMED = TrackedKey("tag_named", expected=False, cos_path="/tag_named")
BOTH = TrackedKey("tag_both", expected=True, cos_path="/tag_both")
EXPECTED = TrackedKey("tag_expected", expected=True)
FOREIGN = TrackedKey("other_img-9", expected=False, cos_path="/other_img-9")
IMAGE_ONLY = TrackedKey("img-0_system", expected=False, cos_path="/img-0_system")


def job(keys: tuple[TrackedKey, ...], *, images: int, reconciled: bool) -> TrackedJob:
    return TrackedJob(
        job_id=1,
        attempt=1,
        state=JobState.ACCEPTED,
        profile=PROFILE,
        region=REGION,
        bucket=BUCKET,
        object_prefix="tag",
        exact_names=False,
        is_part=False,
        format=ImageFormat.RAW,
        image_ids=tuple(f"img-{number}" for number in range(images)),
        size_gib=0,
        reconciled=reconciled,
        attempts_charged=1,
        sent_at=None,
        first_trace_at=None,
        absent_since=None,
        no_resend_before=None,
        accepted_at=None,
        warnings=(),
        keys=keys,
    )


@pytest.mark.parametrize(
    ("images", "reconciled", "keys", "required"),
    [
        (1, False, (NAMED, BOTH, EXPECTED), (NAMED, BOTH, EXPECTED)),
        (1, False, (NAMED,), (NAMED,)),
        (2, False, (NAMED, BOTH, EXPECTED), (NAMED, BOTH, EXPECTED)),
        (2, False, (NAMED,), (NAMED,)),
        (1, True, (BOTH, EXPECTED), (BOTH, EXPECTED)),
        (2, True, (BOTH, EXPECTED), (BOTH, EXPECTED)),
        (1, True, (NAMED,), ()),
        (2, True, (NAMED,), ()),
        (1, False, (FOREIGN, EXPECTED), (EXPECTED,)),
        (1, False, (FOREIGN,), ()),
        (1, False, (IMAGE_ONLY, EXPECTED), (IMAGE_ONLY, EXPECTED)),
    ],
    ids=[
        "one image: what was named, and what was expected",
        "one image, not described",
        "several images: what was named, and what was expected",
        "several images, not described",
        "found in the bucket: what was expected too",
        "several found in the bucket",
        "found, and nothing was expected",
        "several found, and nothing was expected",
        "paths of another job: what was expected",
        "paths of another job, not described",
        "paths without the tag, but with the image",
    ],
)
def test_required_objects_depend_on_the_source_of_the_keys(
    images: int, reconciled: bool, keys: tuple[TrackedKey, ...], required: tuple[TrackedKey, ...]
) -> None:
    """The job's own named keys and all expected keys are required.

    Keys that were found in a bucket may be incomplete, so none is required if none was expected.
    """
    assert job(keys, images=images, reconciled=reconciled).required == required


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, True),
        ({"first_trace_at": NOON}, False),
        ({"exact_names": True}, False),
        ({"is_part": True}, False),
        ({"reconciled": True}, True),
        ({"reconciled": True, "attempt": 2}, False),
        ({"attempt": 2}, True),
    ],
)
def test_a_first_trace_must_belong_to_this_attempt_alone(
    changes: dict[str, Any], expected: bool
) -> None:
    """A first trace is needed only if no other job or attempt can have left it.

    Exact names and shared prefixes may show other jobs. Without an answer, the trace may be that of
    another attempt.
    """
    one = replace(job((NAMED,), images=1, reconciled=False), **changes)
    assert one.needs_first_trace is expected
