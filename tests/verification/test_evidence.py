"""What the objects of a job prove, and what calls for a warning."""

from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial

import pytest

from orchestrator.job_states import JobState
from orchestrator.model import ImageFormat, ObjectFacts
from orchestrator.verification.evidence import compare_with_keys, verdict, writing_has_ended
from orchestrator.verification.tracked_jobs import TrackedJob, TrackedKey
from tests.job_factory import BUCKET, NOON, PROFILE, REGION

GIB = 1 << 30
ONE, TWO = "img-00000001", "img-00000002"
SYSTEM, DATA = f"tag_{ONE}_system_snap-1.raw", f"tag_{ONE}_data_snap-2.raw"
OTHERS = f"tag_{TWO}_system_snap-3.raw"


def make_job(
    *,
    expected: tuple[str, ...] = (),
    named: tuple[str, ...] = (),
    images: tuple[str, ...] = (ONE,),
    reconciled: bool = False,
) -> TrackedJob:
    """Make an accepted job with these keys; each disk has 50 GiB."""
    keys = tuple(
        TrackedKey(
            key,
            expected=key in expected,
            cos_path=f"/{key}" if key in named else None,
            disk_gib=50 if key in expected else None,
        )
        for key in dict.fromkeys((*expected, *named))
    )
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
        image_ids=images,
        size_gib=0,
        reconciled=reconciled,
        attempts_charged=1,
        sent_at=NOON,
        first_trace_at=None,
        absent_since=None,
        no_resend_before=None,
        accepted_at=NOON,
        warnings=(),
        keys=keys,
    )


def make_objects(*keys: str, size: int = 50 * GIB) -> dict[str, ObjectFacts]:
    """Make an object under each key."""
    return {key: ObjectFacts(key, size, f"etag of {key}", NOON) for key in keys}


BOTH = make_job(expected=(SYSTEM, DATA), named=(SYSTEM, DATA))
SYSTEM_ONLY = make_job(expected=(SYSTEM, DATA), named=(SYSTEM,))


def test_all_named_and_expected_objects_are_certain() -> None:
    """Nothing else is needed, and there is no warning."""
    evidence = compare_with_keys(BOTH, make_objects(SYSTEM, DATA))
    assert evidence.is_certain
    assert len(evidence.found) == 2


def test_some_of_the_named_objects_are_not_enough() -> None:
    """What is missing is named."""
    evidence = compare_with_keys(BOTH, make_objects(SYSTEM))
    assert not evidence.is_enough
    assert evidence.missing == (DATA,)


def test_an_expected_object_that_is_not_named_calls_for_a_warning() -> None:
    """A missing object that was expected but not named causes a warning with its key.

    The vendor's list may be complete and the computed key wrong.
    """
    evidence = compare_with_keys(SYSTEM_ONLY, make_objects(SYSTEM))
    assert evidence.is_enough
    (caveat,) = evidence.caveats
    assert DATA in caveat
    assert compare_with_keys(SYSTEM_ONLY, make_objects(SYSTEM, DATA)).is_certain


def test_named_objects_of_an_undescribed_image_call_for_a_warning() -> None:
    """If no object was expected, a warning lists the objects that are there.

    The vendor may have named only some disks.
    """
    evidence = compare_with_keys(make_job(named=(SYSTEM,)), make_objects(SYSTEM, DATA))
    assert evidence.is_enough
    (caveat,) = evidence.caveats
    assert "may not be all" in caveat
    assert {one.key for one in evidence.found} == {SYSTEM, DATA}


def test_an_empty_expected_object_that_is_not_named_is_not_enough() -> None:
    """It was written, so its key was right, and it is no disk image."""
    objects = make_objects(SYSTEM) | make_objects(DATA, size=0)
    evidence = compare_with_keys(SYSTEM_ONLY, objects)
    assert not evidence.is_enough
    assert evidence.too_small == (DATA,)


def test_paths_must_be_named_for_every_image() -> None:
    """If the answer names one of two images only, the other one is not complete."""
    job = make_job(expected=(SYSTEM, OTHERS), named=(SYSTEM,), images=(ONE, TWO))
    assert not compare_with_keys(job, make_objects(SYSTEM)).is_enough
    other = OTHERS.replace("snap-3", "snap-4")
    named = make_job(expected=(SYSTEM, OTHERS), named=(SYSTEM, other), images=(ONE, TWO))
    assert compare_with_keys(named, make_objects(SYSTEM, other)).is_enough


@pytest.mark.parametrize(
    "names",
    [
        [SYSTEM.replace("img", "IMG"), DATA.replace("img", "IMG")],
        [f"{SYSTEM}.gz", f"{DATA}.gz"],
        [f"{SYSTEM}.0", f"{SYSTEM}.1", f"{DATA}.0", f"{DATA}.1"],
        [SYSTEM.replace("snap-1", "snap-8"), DATA.replace("snap-2", "snap-9")],
    ],
    ids=["upper case", "gz", "split", "snapshots"],
)
def test_as_many_objects_under_other_names_call_for_a_warning(names: list[str]) -> None:
    """As many objects as expected are enough under other names, with a warning.

    No other job has the tag; the warning lists the expected and the found names.
    """
    evidence = compare_with_keys(BOTH, make_objects(*names))
    assert evidence.is_enough
    (caveat,) = evidence.caveats
    assert caveat.startswith("Named differently: ")
    assert all(name in caveat for name in (*names, SYSTEM, DATA))
    assert {one.key for one in evidence.found} == set(names)


def test_cos_paths_in_another_case_name_what_is_there() -> None:
    """The computed keys are right, and the vendor's are not: the warning names both."""
    named = tuple("tag" + key.removeprefix("tag").upper() for key in (SYSTEM, DATA))
    evidence = compare_with_keys(
        make_job(expected=(SYSTEM, DATA), named=named), make_objects(SYSTEM, DATA)
    )
    assert evidence.is_enough
    assert all(key in evidence.caveats[0] for key in (*named, SYSTEM, DATA))


def test_fewer_objects_under_other_names_are_not_enough() -> None:
    """One file cannot be both disks, whatever its name is."""
    assert not compare_with_keys(BOTH, make_objects(f"{SYSTEM}.gz")).is_enough


def test_a_known_key_that_is_missing_counts_at_the_deadline_too() -> None:
    """An upload was seen under it, or an answer to an earlier attempt has named it."""
    one, other = "tag_img-00000001-a.qcow2", "tag_img-00000001-b.qcow2"
    job = replace(make_job(named=(one, other), reconciled=True), format=ImageFormat.QCOW2)
    evidence = compare_with_keys(job, make_objects(one))
    assert verdict(evidence, has_ended=True, is_overdue=True) is JobState.FAILED


@pytest.mark.parametrize(
    ("format", "named", "written", "gib", "expected"),
    [
        (ImageFormat.RAW, (), "tag_img-00000001.raw", 100, JobState.VERIFIED),
        (ImageFormat.RAW, (SYSTEM, DATA), "tag_img-00000001.raw", 100, JobState.VERIFIED),
        (ImageFormat.RAW, (), SYSTEM, 100, JobState.VERIFIED),
        (ImageFormat.RAW, (), "tag_img-00000001.raw", 99, JobState.FAILED),
        (ImageFormat.RAW, (), SYSTEM, 50, JobState.FAILED),
        (ImageFormat.QCOW2, (), "tag_img-00000001.raw", 3, JobState.VERIFIED),
        (ImageFormat.QCOW2, (), SYSTEM, 3, JobState.FAILED),
        (ImageFormat.QCOW2, (), f"{SYSTEM}.gz", 3, JobState.FAILED),
        (ImageFormat.VMDK, (), f"tag{SYSTEM.removeprefix('tag').upper()}", 3, JobState.FAILED),
        (ImageFormat.VMDK, (), DATA.replace("snap-2", "snap-9"), 3, JobState.FAILED),
        (ImageFormat.QCOW2, (SYSTEM, DATA), "tag_img-00000001.raw", 3, JobState.FAILED),
        (ImageFormat.QCOW2, (), "img-00000001.raw", 3, JobState.FAILED),
    ],
)
def test_fewer_objects_than_disks_count_at_the_deadline_unless_something_shows_a_missing_one(
    format: ImageFormat,  # noqa: A002 - the name of the field
    named: tuple[str, ...],
    written: str,
    gib: int,
    expected: JobState,
) -> None:
    """At the deadline one file may hold both disks, if size and names allow it.

    A RAW file must be large enough for both disks. In other formats, names must not show that each
    disk has its own file.
    """
    job = replace(
        make_job(expected=(SYSTEM, DATA), named=named, reconciled=not named), format=format
    )
    evidence = compare_with_keys(job, make_objects(written, size=gib * GIB))
    assert not evidence.is_enough
    assert verdict(evidence, has_ended=True) is JobState.ACCEPTED
    assert verdict(evidence, is_overdue=True) is JobState.FAILED
    assert verdict(evidence, has_ended=True, is_overdue=True) is expected
    if expected is JobState.VERIFIED:
        assert evidence.caveats[0].startswith(f"Fewer objects than disks: {written}, for 2.")


def test_a_raw_file_named_like_one_disk_is_not_all_disks_where_sizes_are_not_known() -> None:
    """Without the sizes of the disks its name shows that the other disk is missing."""
    job = make_job(expected=(SYSTEM, DATA), reconciled=True)
    job = replace(job, keys=tuple(replace(key, disk_gib=None) for key in job.keys))
    for written, is_enough in ((f"{SYSTEM}.gz", False), (f"tag_{ONE}.raw", True)):
        evidence = compare_with_keys(job, make_objects(written))
        assert evidence.is_enough_at_deadline is is_enough


def test_one_file_of_undescribed_images_is_compared_with_their_number() -> None:
    """Each image has at least one disk, also where nothing was named or expected."""
    job = make_job(images=(ONE, TWO), reconciled=True)
    evidence = compare_with_keys(job, make_objects(f"tag_{ONE}_{TWO}.raw"))
    assert ", for 2." in evidence.caveats[0]


def test_objects_under_other_names_are_needed_for_each_image() -> None:
    """Two files of one image are not enough for two images.

    If the names contain no image ids, the number of files counts.
    """
    job = make_job(named=(SYSTEM, OTHERS), images=(ONE, TWO))
    assert not compare_with_keys(job, make_objects(f"{SYSTEM}.0", f"{SYSTEM}.1")).is_enough
    assert compare_with_keys(job, make_objects(f"{SYSTEM}.gz", f"{OTHERS}.gz")).is_enough
    assert compare_with_keys(job, make_objects("tag_1.raw", "tag_2.raw")).is_enough


def test_nothing_named_and_nothing_expected_calls_for_a_warning() -> None:
    """Without facts about the image nobody knows how many objects there must be."""
    evidence = compare_with_keys(make_job(reconciled=True), make_objects(SYSTEM))
    assert evidence.is_enough
    assert "how many" in evidence.caveats[0]
    assert not compare_with_keys(make_job(reconciled=True), {}).is_enough


def test_a_reconciled_job_needs_as_many_objects_as_an_earlier_answer_named() -> None:
    """A reconciled job needs as many objects as an earlier answer named.

    The answer to an attempt before a retry has shown this number.
    """
    job = make_job(named=(SYSTEM, DATA), reconciled=True)
    assert not compare_with_keys(job, make_objects(SYSTEM)).is_enough
    assert compare_with_keys(job, make_objects(SYSTEM, DATA)).is_enough


def test_a_reconciled_job_needs_as_many_objects_as_were_expected() -> None:
    """The keys found in the bucket are not an answer of the vendor."""
    job = make_job(expected=(SYSTEM, DATA), named=(SYSTEM,), reconciled=True)
    assert not compare_with_keys(job, make_objects(SYSTEM)).is_enough


@pytest.mark.parametrize(
    ("image_format", "size"),
    [
        (ImageFormat.RAW, (1 << 20) - 1),
        (ImageFormat.QCOW2, 71),
        (ImageFormat.VHD, 511),
        (ImageFormat.VMDK, 0),
    ],
)
def test_an_object_smaller_than_a_header_is_not_found(image_format: ImageFormat, size: int) -> None:
    """Such a file is no disk image in any case."""
    job = replace(BOTH, format=image_format)
    evidence = compare_with_keys(job, make_objects(SYSTEM, DATA, size=size))
    assert not evidence.is_enough
    assert evidence.too_small == (SYSTEM, DATA)


def test_a_raw_object_shorter_than_its_disk_calls_for_a_warning() -> None:
    """A RAW object that is shorter than its disk is enough, with a warning.

    The length of a RAW file is inferred, and files of other formats may have any size.
    """
    objects = make_objects(SYSTEM, DATA, size=50 * GIB - 1)
    evidence = compare_with_keys(BOTH, objects)
    assert evidence.is_enough
    assert [SYSTEM in evidence.caveats[0], DATA in evidence.caveats[1]] == [True, True]
    assert compare_with_keys(replace(BOTH, format=ImageFormat.VHD), objects).is_certain


@pytest.mark.parametrize(
    ("written", "age", "has_ended"),
    [
        ([60], 119, False),
        ([60], 120, True),
        ([30, 60], 119, False),
        ([2], 11, False),
        ([2], 12, True),
        ([-3600], 60, False),
        ([3600], 60, False),
        ([None, 60], 500, False),
        ([], 500, False),
    ],
    ids=[
        "too early",
        "as long again",
        "the newest counts",
        "not 10 s yet",
        "10 s",
        "before the export",
        "in the future",
        "no time",
        "no object",
    ],
)
def test_as_long_a_pause_as_the_export_took_ends_the_wait(
    written: list[int | None], age: int, has_ended: bool
) -> None:
    """Writing has ended after a pause as long as the export took, at least 10 s.

    The export took the time from its request to its newest object. Unclear times do not show an
    end.
    """
    objects = {
        f"{number}": ObjectFacts(f"{number}", GIB, "e", after(seconds))
        for number, seconds in enumerate(written)
    }
    since = timedelta(seconds=age)
    look = partial(writing_has_ended, objects, uploads_are_visible=True)
    assert look(since_request=since, clocks=[NOON + since]) is has_ended
    assert not look(since_request=None, clocks=[NOON + since])
    assert not look(since_request=since, clocks=[])


@pytest.mark.parametrize("wrong", [-1000, 1000])
def test_a_clock_that_contradicts_the_request_is_not_used(wrong: int) -> None:
    """By a wrong clock the object is older than the request, or yet to be written."""
    objects = {"a": ObjectFacts("a", GIB, "e", after(60))}
    for age, has_ended in ((119, False), (120, True)):
        clocks = [NOON + timedelta(seconds=age + error) for error in (0, wrong)]
        assert has_ended is writing_has_ended(
            objects,
            since_request=timedelta(seconds=age),
            clocks=clocks,
            uploads_are_visible=True,
        )


def test_where_uploads_are_not_visible_an_export_must_rest_for_longer() -> None:
    """There nothing but time shows that no more objects come."""
    objects = {"a": ObjectFacts("a", GIB, "e", after(60))}
    for age, has_ended in ((239, False), (240, True)):
        since = timedelta(seconds=age)
        assert has_ended is writing_has_ended(
            objects, since_request=since, clocks=[NOON + since], uploads_are_visible=False
        )


def after(seconds: int | None) -> datetime | None:
    return None if seconds is None else NOON + timedelta(seconds=seconds)
