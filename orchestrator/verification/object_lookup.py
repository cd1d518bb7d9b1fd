"""One look into the bucket for the traces of a job whose answer is not held."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from orchestrator.cloud.clock_skew import TOLERATED_DRIFT
from orchestrator.cloud.cos import CosClient
from orchestrator.model import ObjectFacts, UploadFacts
from orchestrator.verification.completeness import is_disk_of
from orchestrator.verification.expected_objects import TrackedJob, TrackedKey


@dataclass(frozen=True, slots=True)
class LookupResult:
    """What one look found.

    Args:
        uploads: keys that are being written.
        objects: objects that are whole.
        age: how long ago the first of them was left; ``None`` where that tells nothing.
    """

    uploads: tuple[str, ...] = ()
    objects: tuple[ObjectFacts, ...] = ()
    age: timedelta | None = None

    @property
    def keys(self) -> tuple[str, ...]:
        """Every key the export has begun to write."""
        return tuple(dict.fromkeys((*self.uploads, *(facts.key for facts in self.objects))))

    def __bool__(self) -> bool:
        return bool(self.uploads or self.objects)


async def look(cos: CosClient, job: TrackedJob) -> LookupResult:
    """Looks for uploads first and objects second, so that one which ends in between is seen.

    Under the job's own tag anything is its own. Under an exact name only what has changed since
    before the first request is.

    Raises:
        CloudRefusal, httpx.HTTPError: a listing failed; then this was no look at all.
    """
    uploads = await open_uploads(cos, job)
    writing = tuple(upload.key for upload in uploads)
    objects = await listed_objects(cos, job)
    if job.exact_names:
        heads = [await head(cos, job, key) for key in job.keys if key.key in objects]
        return LookupResult(writing, tuple(facts for facts in heads if facts is not None))
    moments = [facts.last_modified for facts in objects.values()]
    moments += [upload.initiated for upload in uploads]
    return LookupResult(writing, tuple(objects.values()), trace_age_of(cos, job, moments))


def trace_age_of(
    cos: CosClient, job: TrackedJob, moments: Sequence[datetime | None]
) -> timedelta | None:
    """How long ago the first of these traces was left, at least, by COS's own clock."""
    if job.exact_names or job.is_part or not moments:
        return None
    known = [moment for moment in moments if moment is not None]
    if not known or not cos.clock.is_known:
        return timedelta()
    return max(timedelta(), cos.clock.now() - min(known) - TOLERATED_DRIFT)


async def listed_objects(cos: CosClient, job: TrackedJob) -> dict[str, ObjectFacts]:
    """The objects that may be this job's, by key, as a listing shows them.

    Raises:
        CloudRefusal, httpx.HTTPError: a listing failed.
    """
    if not job.exact_names:
        found = await cos.list_objects(job.region, job.bucket, job.object_prefix)
        return {facts.key: facts for facts in found if _is_own(job, facts.key)}
    listed: dict[str, ObjectFacts] = {}
    for key in job.keys:
        under = await cos.list_objects(job.region, job.bucket, key.key)
        listed |= {facts.key: facts for facts in under if facts.key == key.key}
    return listed


async def open_uploads(cos: CosClient, job: TrackedJob) -> tuple[UploadFacts, ...]:
    """The uploads of this job that go on now.

    Raises:
        CloudRefusal, httpx.HTTPError: the listing failed.
    """
    if not job.exact_names:
        uploads = await cos.list_uploads(job.region, job.bucket, job.object_prefix)
        return tuple(upload for upload in uploads if _is_own(job, upload.key))
    found: list[UploadFacts] = []
    for key in job.keys:
        under = await cos.list_uploads(job.region, job.bucket, key.key)
        found += (upload for upload in under if upload.key == key.key)
    return tuple(found)


def _is_own(job: TrackedJob, key: str) -> bool:
    """Under a job's own tag anything is its own; a part shares the tag with the whole."""
    if not key.startswith(job.object_prefix):
        return False  # a listing that ignores the prefix shows other jobs' objects
    return not job.is_part or any(
        is_disk_of(image, key, job.object_prefix) for image in job.image_ids
    )


async def head(cos: CosClient, job: TrackedJob, key: TrackedKey) -> ObjectFacts | None:
    """The object under a key, if it is there and this job's own; it may be empty."""
    facts = await cos.head_object(job.region, job.bucket, key.key)
    return None if facts is None else own_object(job, key, facts)


def own_object(job: TrackedJob, key: TrackedKey, facts: ObjectFacts) -> ObjectFacts | None:
    """An object under one of a job's keys, if it is this job's own."""
    return facts if not job.exact_names or _is_new(job, key, facts) else None


def _is_new(job: TrackedJob, key: TrackedKey, facts: ObjectFacts) -> bool:
    """Whether an object under an exact name is this job's, and not what lay there before.

    Where nothing was noted before the request, an accepted one may be judged by the time.
    """
    if key.baseline_etag is not None:
        return facts.etag != key.baseline_etag
    if job.adopted or job.sent_at is None or facts.last_modified is None:
        return False
    return facts.last_modified >= job.sent_at.replace(microsecond=0)


async def baselines(cos: CosClient, job: TrackedJob) -> dict[str, str]:
    """Return what lies under the exact names before they are sent: it is not the job's own.

    Returns:
        The ETag of each key that was not looked at before; empty where there is no object.

    Raises:
        CloudRefusal, httpx.HTTPError: a look failed; the job must not be sent yet.
    """
    etags: dict[str, str] = {}
    for key in job.keys:
        if key.baseline_etag is None:
            facts = await cos.head_object(job.region, job.bucket, key.key)
            etags[key.key] = facts.etag if facts else ""
    return etags
