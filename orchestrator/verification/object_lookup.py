"""Look up the uploads and objects of one job in its bucket."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from orchestrator.cloud.clock_skew import TOLERATED_DRIFT
from orchestrator.cloud.cos import CosClient
from orchestrator.model import ObjectFacts, UploadFacts
from orchestrator.verification.completeness import is_disk_of
from orchestrator.verification.job_objects import TrackedJob, TrackedKey


@dataclass(frozen=True, slots=True)
class LookupResult:
    """What one look-up found.

    Args:
        uploads: keys that are being written.
        objects: complete objects.
        age: time since the first of them was left; ``None`` if that says nothing about this job.
    """

    uploads: tuple[str, ...] = ()
    objects: tuple[ObjectFacts, ...] = ()
    age: timedelta | None = None

    @property
    def keys(self) -> tuple[str, ...]:
        """Every key that the export has begun to write."""
        return tuple(dict.fromkeys((*self.uploads, *(facts.key for facts in self.objects))))

    def __bool__(self) -> bool:
        return bool(self.uploads or self.objects)


async def look(cos: CosClient, job: TrackedJob) -> LookupResult:
    """List uploads first and objects second, so that an upload that ends in between is seen.

    Everything under the job's own tag belongs to it. Under an exact name only an object that has
    changed since before the first request does.

    Raises:
        CloudRefusal, CredentialError, httpx.HTTPError: a listing failed, so the look-up proves
            nothing.
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
    """Return the minimum time since the first of these traces was left, by the clock of COS."""
    if job.exact_names or job.is_part or not moments:
        return None
    known = [moment for moment in moments if moment is not None]
    if not known or not cos.clock.is_known:
        return timedelta()
    return max(timedelta(), cos.clock.now() - min(known) - TOLERATED_DRIFT)


async def listed_objects(cos: CosClient, job: TrackedJob) -> dict[str, ObjectFacts]:
    """Return the objects that may belong to this job, by key, as a listing shows them.

    Raises:
        CloudRefusal, CredentialError, httpx.HTTPError: the listing failed.
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
    """Return the open multipart uploads of this job.

    Raises:
        CloudRefusal, CredentialError, httpx.HTTPError: the listing failed.
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
    """Return whether a listed key belongs to the job; a split-off job shares its prefix."""
    if not key.startswith(job.object_prefix):
        return False  # a listing that ignores the prefix shows the objects of other jobs
    return not job.is_part or any(
        is_disk_of(image, key, job.object_prefix) for image in job.image_ids
    )


async def head(cos: CosClient, job: TrackedJob, key: TrackedKey) -> ObjectFacts | None:
    """Return the object under a key if it exists and belongs to the job; it may be empty."""
    facts = await cos.head_object(job.region, job.bucket, key.key)
    return None if facts is None else own_object(job, key, facts)


def own_object(job: TrackedJob, key: TrackedKey, facts: ObjectFacts) -> ObjectFacts | None:
    """Return an object found under one of a job's keys if it belongs to the job."""
    return facts if not job.exact_names or _is_new(job, key, facts) else None


def _is_new(job: TrackedJob, key: TrackedKey, facts: ObjectFacts) -> bool:
    """Return whether an object under an exact name was written after the request was sent.

    If an ETag was recorded before the request (empty for no object), an object with another ETag
    is new. Otherwise an object is new if it was last modified in the second of sending or later,
    but only for a job with a TaskId, because then its export certainly began.
    """
    if key.baseline_etag is not None:
        return facts.etag != key.baseline_etag
    if job.reconciled or job.sent_at is None or facts.last_modified is None:
        return False
    return facts.last_modified >= job.sent_at.replace(microsecond=0)


async def baselines(cos: CosClient, job: TrackedJob) -> dict[str, str]:
    """Return what exists under the exact names before the request; it is not the job's own.

    Returns:
        The ETag of each key that was not looked at before; empty where there is no object.

    Raises:
        CloudRefusal, CredentialError, httpx.HTTPError: a look-up failed; the job must not be sent
            yet.
    """
    etags: dict[str, str] = {}
    for key in job.keys:
        if key.baseline_etag is None:
            facts = await cos.head_object(job.region, job.bucket, key.key)
            etags[key.key] = facts.etag if facts else ""
    return etags
