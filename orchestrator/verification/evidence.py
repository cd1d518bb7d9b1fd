"""Decide what the objects of an accepted job prove.

A job is verified at once when every key is there that the vendor named and that was computed from
the images. Other objects can be complete too, because the vendor may name or write them in another
way than expected. Such a job is verified when nothing more is written for a while, with a warning.
Fewer objects than disks may be complete too, so at the deadline such a job is verified instead of
failed, unless their sizes or names show that something is missing.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from orchestrator.job_states import JobState
from orchestrator.model import ImageFormat, ObjectFacts
from orchestrator.verification.tracked_jobs import TrackedJob

_GIB = 1 << 30

_MIN_SIZE = {
    ImageFormat.RAW: 1 << 20,
    ImageFormat.QCOW2: 72,
    ImageFormat.VHD: 512,
    ImageFormat.VMDK: 512,
}
"""Bytes of the smallest header or footer (source: the formats' specifications); no RAW disk has
less than 1 MiB. A smaller file, above all an empty one, is no disk image."""

_MIN_REST = timedelta(seconds=10)
"""Shortest time without a new object after which no more are expected."""

_ROUNDING = timedelta(seconds=1)
"""Last-Modified has whole seconds."""

_UNSEEN_FACTOR = 3
"""Factor by which this time is longer where no open upload was ever seen: there the listing of
uploads does not show that something is still being written."""

_ONE_DISK = ("_system_", "_data_")
"""Parts of a documented name, which show that a file holds one disk."""

_CHECK_DISKS = "Check that each disk of the image has its file."


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the objects of a job are, compared with its keys.

    Args:
        found: objects that count, none of which is too small.
        too_small: required keys of objects that are too small to be a disk image.
        missing: required keys without an object.
        is_enough: the objects that were found may be all that the export writes.
        is_enough_at_deadline: the same once it is too late to wait for more.
        caveats: why they may not be; a sentence each.
    """

    found: tuple[ObjectFacts, ...] = ()
    too_small: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    is_enough: bool = False
    is_enough_at_deadline: bool = False
    caveats: tuple[str, ...] = ()

    @property
    def is_certain(self) -> bool:
        """Whether the objects are all that the export writes."""
        return self.is_enough and not self.caveats


def compare_with_keys(job: TrackedJob, objects: Mapping[str, ObjectFacts]) -> Evidence:
    """Compare the objects of a job with the keys that were named or expected.

    The checks are in this order: every required key is there; every key is there that the vendor
    named, and it named one for each image; there are as many objects as were named or expected.

    Args:
        objects: the objects that belong to the job, by key.
    """
    usable = {key: one for key, one in objects.items() if one.size >= _MIN_SIZE[job.format]}
    required = [key.key for key in job.required]
    found = tuple(usable[key] for key in required if key in usable)
    missing = tuple(key for key in required if key not in objects)
    too_small = tuple(key for key in required if key in objects and key not in usable)
    short = _short_objects(job, found)
    if required and len(found) == len(required):
        if job.expected:
            return Evidence(found, is_enough=True, caveats=short)
        # of an image that was not described the vendor may have named only some disks
        every, caveat = tuple(usable.values()), _naming_caveat((), list(usable))
        return Evidence(every, is_enough=True, caveats=(caveat, *short))
    named = [key.key for key in job.named]
    if not too_small and job.names_every_image(named) and usable.keys() >= set(named):
        caveat = (
            "Expected, but neither named by the vendor nor written: "
            f"{_listed(missing)}. {_CHECK_DISKS}"
        )
        return Evidence(found, missing=missing, is_enough=True, caveats=(caveat, *short))
    if not too_small and job.names_every_image(usable):
        every, disks = (
            tuple(usable.values()),
            max(map(len, (job.known, job.expected, job.image_ids))),
        )
        if len(usable) >= disks:
            caveat = _naming_caveat(missing, [key for key in usable if key not in named])
            return Evidence(every, missing=missing, is_enough=True, caveats=(caveat, *short))
        if _may_hold_every_disk(job, usable):
            caveat = f"Fewer objects than disks: {_listed([*usable])}, for {disks}. {_CHECK_DISKS}"
            return Evidence(every, missing=missing, is_enough_at_deadline=True, caveats=(caveat,))
    return Evidence(found, too_small, missing)


def verdict(evidence: Evidence, *, has_ended: bool = False, is_overdue: bool = False) -> JobState:
    """Return the state of an accepted job after a look at its objects.

    Args:
        has_ended: nothing more is expected to be written.
        is_overdue: it is too late to wait any longer.
    """
    is_enough = evidence.is_enough or (evidence.is_enough_at_deadline and is_overdue)
    if evidence.is_certain or (is_enough and has_ended):
        return JobState.VERIFIED
    return JobState.FAILED if is_overdue else JobState.ACCEPTED


def writing_has_ended(
    objects: Mapping[str, ObjectFacts],
    *,
    since_request: timedelta | None,
    clocks: Sequence[datetime],
    uploads_are_visible: bool,
) -> bool:
    """Return whether nothing was written for as long again as the export took.

    The pause must be at least 10 s. Where open uploads are not visible, it must be three times as
    long.

    Args:
        since_request: time since the request; without it nothing is known.
        clocks: the times that may be that of COS. One by which an object was written before the
            request or is yet to be written is wrong; by all others nothing must have come.
    """
    times = [one.last_modified for one in objects.values() if one.last_modified is not None]
    if since_request is None or not times or len(times) < len(objects):
        return False
    factor = 1 if uploads_are_visible else _UNSEEN_FACTOR
    pauses = [now - max(times) for now in clocks]
    possible = [one for one in pauses if timedelta() <= one <= since_request + _ROUNDING]
    return bool(possible) and all(
        one >= max(since_request - one, _MIN_REST) * factor for one in possible
    )


def _may_hold_every_disk(job: TrackedJob, usable: Mapping[str, ObjectFacts]) -> bool:
    """Return whether fewer objects than disks may be all that the export writes.

    RAW files must be as large as all disks together. The sizes of other formats show nothing: there
    no known key may be missing, and no name may show that each disk has a file of its own.
    """
    if not all(map(job.is_tagged, usable)):
        return False
    sizes = [key.disk_gib or 0 for key in job.expected]
    if job.format is ImageFormat.RAW and sizes and all(sizes):
        return sum(one.size for one in usable.values()) >= sum(sizes) * _GIB
    names = [key.removeprefix(job.object_prefix).lower() for key in usable]
    is_any_missing = any(key.key not in usable for key in job.known)
    return not is_any_missing and not any(kind in name for kind in _ONE_DISK for name in names)


def _naming_caveat(missing: Sequence[str], others: Sequence[str]) -> str:
    if not missing:
        return (
            "Neither the vendor's answer nor DescribeImages tells how many objects there must be: "
            f"{_listed(others)} may not be all. {_CHECK_DISKS}"
        )
    return f"Named differently: {_listed(others)}, and not {_listed(missing)}. {_CHECK_DISKS}"


def _short_objects(job: TrackedJob, found: Iterable[ObjectFacts]) -> tuple[str, ...]:
    """Return a sentence for each object that is smaller than its disk.

    That a RAW file is as long as its disk is inferred, not documented, so it fails no job.
    """
    if job.format is not ImageFormat.RAW:
        return ()
    disks = {key.key: key.disk_gib for key in job.keys if key.disk_gib}
    return tuple(
        f"{facts.key} has {facts.size:,} bytes, its disk {disks[facts.key]} GiB. Check it before "
        "you rely on it: a RAW file should be as long as its disk."
        for facts in found
        if facts.size < disks.get(facts.key, 0) * _GIB
    )


def _listed(keys: Sequence[str]) -> str:
    return ", ".join(keys)
