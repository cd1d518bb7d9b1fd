"""What an export has delivered: what is there, what is missing, and what cannot be right."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from orchestrator.model import ImageFormat, ObjectFacts
from orchestrator.verification.expected_objects import TrackedJob

_GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Completeness:
    """What was seen under the keys that a job must have.

    Args:
        found: whole objects with bytes in them.
        empty: keys of objects without any: no disk is empty.
        missing: keys under which nothing lies.
    """

    found: tuple[ObjectFacts, ...]
    empty: tuple[str, ...]
    missing: tuple[str, ...]

    @property
    def is_complete(self) -> bool:
        """Whether everything is there."""
        return bool(self.found) and not self.empty and not self.missing

    def __str__(self) -> str:
        expected = len(self.found) + len(self.empty) + len(self.missing)
        said = f"{len(self.found)} of {expected} objects are there"
        return f"{said}, {len(self.empty)} without a byte" if self.empty else said


def is_disk_of(image_id: str, key: str, object_prefix: str) -> bool:
    """Whether an object's name says that it is a disk of this image.

    Behind the prefix comes the image's id (source: the vendor's page on exporting images).
    """
    return key.removeprefix(object_prefix).removeprefix("_").startswith(f"{image_id}_")


def missing_images(
    image_ids: Iterable[str], object_prefix: str, keys: Iterable[str], found: Collection[str]
) -> list[str]:
    """The images of one request that never arrived, in its order; none where one cannot tell.

    Args:
        keys: every key that the job must have; names without any image's id tell nothing.
        found: those of them that arrived.
    """
    of_image = {
        image: {key for key in keys if is_disk_of(image, key, object_prefix)} for image in image_ids
    }
    if not any(of_image.values()):
        return []
    return [image for image, own in of_image.items() if not own or not own <= set(found)]


def size_warnings(job: TrackedJob, found: Iterable[ObjectFacts]) -> list[str]:
    """Objects of a size that cannot be right, each as a sentence.

    A RAW file is as long as its disk (inferred, not documented: so it is said, and fails nothing).
    """
    if job.format is not ImageFormat.RAW:
        return []
    disks = {key.key: key.disk_gib for key in job.keys if key.disk_gib}
    return [
        f"{facts.key} has {facts.size:,} bytes, its disk {disks[facts.key]} GiB."
        for facts in found
        if facts.size < disks.get(facts.key, 0) * _GIB
    ]
