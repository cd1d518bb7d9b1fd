"""Which objects must be there before a job counts as verified, and which images arrived."""

from dataclasses import replace
from urllib.parse import quote

import pytest

from orchestrator.job_states import JobState
from orchestrator.model import ExportOrder, ImageFormat
from orchestrator.verification.tracked_jobs import (
    TrackedJob,
    TrackedKey,
    key_of_cos_path,
    missing_images,
)
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
    """What was named and what was expected; what was found in a bucket may be incomplete."""
    assert job(keys, images=images, reconciled=reconciled).required == required


ORDER = ExportOrder(
    REGION,
    ("img-00000001",),
    BUCKET,
    ImageFormat.RAW,
    "a%b/tag",
    only_root_disk=False,
    role_name=None,
)
KEY = "a%b/tag_img-00000001_system_snap-1.raw"
HOST = f"https://{BUCKET}.cos.{REGION}.myqcloud.com"


@pytest.mark.parametrize(
    ("path", "key"),
    [
        (f"/{KEY}", KEY),
        (KEY, KEY),
        (f"{HOST}/{quote(KEY)}?sign=1", KEY),
        (f"/{quote(KEY, safe='')}", KEY),
        (quote(f"/{KEY}", safe=""), KEY),
        (f"/{BUCKET}/{KEY}", KEY),
        ("/img-00000001_system_snap-1.raw", "img-00000001_system_snap-1.raw"),
        (f"{HOST}/img-00000001_system.raw", "img-00000001_system.raw"),
        ("/a%b/tag_IMG-00000001_SYSTEM.RAW", "a%b/tag_IMG-00000001_SYSTEM.RAW"),
    ],
    ids=[
        "documented",
        "no slash",
        "URL",
        "encoded",
        "all encoded",
        "bucket",
        "no tag",
        "URL without tag",
        "case",
    ],
)
def test_cos_paths_of_any_form_mean_the_same_key(path: str, key: str) -> None:
    """A URL, percent-encoding, the bucket or no slash lead to the same key; a % of ours stays."""
    assert key_of_cos_path(path, ORDER) == key


def test_cos_paths_without_a_prefix_are_told_by_the_image() -> None:
    """With exact names and no prefix a key begins with its image id."""
    order = replace(ORDER, name_prefix="")
    key = "img-00000001_system_snap-1.raw"
    for path in (
        f"/{key}",
        f"{HOST}/{key}",
        f"/{BUCKET}/{key}",
        "%2Fimg%2D00000001_system_snap%2D1.raw",
    ):
        assert key_of_cos_path(path, order) == key


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
