"""Whether all objects of an export exist, and whether their sizes are plausible."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from orchestrator.model import ImageFormat, ObjectFacts
from orchestrator.verification.job_objects import TrackedJob

_GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Completeness:
    """What was seen under the required keys of a job.

    Args:
        found: complete objects that are not empty.
        empty: keys of objects with 0 bytes; no disk is empty.
        missing: keys without an object.
    """

    found: tuple[ObjectFacts, ...]
    empty: tuple[str, ...]
    missing: tuple[str, ...]

    @property
    def is_complete(self) -> bool:
        """Whether every required object exists."""
        return bool(self.found) and not self.empty and not self.missing

    def __str__(self) -> str:
        expected = len(self.found) + len(self.empty) + len(self.missing)
        said = f"{len(self.found)} of {expected} objects are there"
        return f"{said}, {len(self.empty)} without a byte" if self.empty else said


def is_disk_of(image_id: str, key: str, object_prefix: str) -> bool:
    """Return whether a key names a disk of this image.

    The image id follows the prefix (source: the vendor's page on exporting images).
    """
    return key.removeprefix(object_prefix).removeprefix("_").startswith(f"{image_id}_")


def missing_images(
    image_ids: Iterable[str], object_prefix: str, keys: Iterable[str], found: Collection[str]
) -> list[str]:
    """Return the images of one request without all their objects, in the request's order.

    Args:
        keys: every required key. If none contains an image id, nothing is returned.
        found: those keys that have an object.
    """
    of_image = {
        image: {key for key in keys if is_disk_of(image, key, object_prefix)} for image in image_ids
    }
    if not any(of_image.values()):
        return []
    return [image for image, own in of_image.items() if not own or not own <= set(found)]


def size_warnings(job: TrackedJob, found: Iterable[ObjectFacts]) -> list[str]:
    """Return a sentence for each object that is smaller than its disk.

    A RAW file is as long as its disk. This is inferred, not documented, so it is only a warning.
    """
    if job.format is not ImageFormat.RAW:
        return []
    disks = {key.key: key.disk_gib for key in job.keys if key.disk_gib}
    return [
        f"{facts.key} has {facts.size:,} bytes, its disk {disks[facts.key]} GiB."
        for facts in found
        if facts.size < disks.get(facts.key, 0) * _GIB
    ]
