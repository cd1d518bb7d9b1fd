"""Which objects must be there before a job counts as verified, and which images arrived."""

import pytest

from orchestrator.job_states import JobState
from orchestrator.model import ImageFormat
from orchestrator.verification.tracked_jobs import TrackedJob, TrackedKey, missing_images
from tests.job_factory import BUCKET, PROFILE, REGION

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
        keys=keys,
    )


@pytest.mark.parametrize(
    ("images", "reconciled", "keys", "required"),
    [
        (1, False, (NAMED, BOTH, EXPECTED), (NAMED, BOTH)),
        (1, False, (NAMED,), (NAMED,)),
        (2, False, (NAMED, BOTH, EXPECTED), (NAMED, BOTH, EXPECTED)),
        (2, False, (NAMED,), (NAMED,)),
        (1, True, (BOTH, EXPECTED), (BOTH, EXPECTED)),
        (2, True, (BOTH, EXPECTED), (BOTH, EXPECTED)),
        (1, True, (NAMED,), ()),
        (2, True, (NAMED,), ()),
        (1, False, (FOREIGN, EXPECTED), (EXPECTED,)),
        (1, False, (FOREIGN,), ()),
        (1, False, (IMAGE_ONLY, EXPECTED), (IMAGE_ONLY,)),
    ],
    ids=[
        "one image: the vendor's list",
        "one image, not described",
        "several images: what was expected too",
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
    """The vendor's list is complete for one image; keys found in a bucket may be incomplete."""
    assert job(keys, images=images, reconciled=reconciled).required == required


ONE, OTHER = "img-00000001", "img-00000002"
SYSTEM, DATA = f"tag_{ONE}_system_snap-1.raw", f"tag_{ONE}_data_snap-2.raw"
OTHERS = f"tag_{OTHER}_system_snap-3.raw"


@pytest.mark.parametrize(
    ("keys", "found", "missing"),
    [
        ([SYSTEM, DATA, OTHERS], [SYSTEM, DATA, OTHERS], []),
        ([SYSTEM, DATA, OTHERS], [SYSTEM, OTHERS], [ONE]),
        ([SYSTEM, DATA, OTHERS], [], [ONE, OTHER]),
        ([SYSTEM, DATA], [SYSTEM, DATA], [OTHER]),
        (["another-name.raw"], ["another-name.raw"], []),
        ([], [], []),
    ],
    ids=["all", "a disk is missing", "nothing", "an image was never named", "foreign", "no names"],
)
def test_an_image_has_arrived_when_each_of_its_objects_has(
    keys: list[str], found: list[str], missing: list[str]
) -> None:
    """An image is missing when one of its objects is, or none was ever named."""
    assert missing_images([ONE, OTHER], "tag", keys, found) == missing


def test_an_image_named_by_the_prefix_is_not_taken_for_delivered() -> None:
    """An image id in the user's own prefix does not show which image an object belongs to."""
    prefix = f"{OTHER}-tag"
    key = f"{prefix}_{ONE}_system_snap-1.raw"
    assert missing_images([ONE, OTHER], prefix, [key], [key]) == [OTHER]
