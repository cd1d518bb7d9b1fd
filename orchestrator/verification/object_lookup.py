"""Look up the uploads and objects of one job in its bucket."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from orchestrator.cloud.clock_skew import TOLERATED_DRIFT
from orchestrator.cloud.cos import CosClient
from orchestrator.model import ObjectFacts, UploadFacts
from orchestrator.verification.tracked_jobs import TrackedJob, is_disk_of


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
    listed = await listed_objects(cos, job)
    objects = tuple(listed.values())
    if job.exact_names:
        # a listing may still show the object that was there before
        heads = [await head(cos, job, key) for key in listed]
        objects = tuple(facts for facts in heads if facts is not None)
    moments = [facts.last_modified for facts in objects]
    moments += [upload.initiated for upload in uploads]
    writing = tuple(upload.key for upload in uploads)
    return LookupResult(writing, objects, trace_age_of(cos, job, moments))


def trace_age_of(
    cos: CosClient, job: TrackedJob, moments: Sequence[datetime | None]
) -> timedelta | None:
    """Return the minimum time since the first of these traces was left, by the clock of COS.

    ``None`` without any, and where it would not show how soon exports become visible.
    """
    if not job.needs_first_trace or not moments:
        return None
    known = [moment for moment in moments if moment is not None]
    if not known or not cos.clock.is_known:
        return timedelta()
    return max(timedelta(), cos.clock.now() - min(known) - TOLERATED_DRIFT)


async def listed_objects(cos: CosClient, job: TrackedJob) -> dict[str, ObjectFacts]:
    """Return the objects under the keys of this job, by key, as a listing shows them.

    Raises:
        CloudRefusal, CredentialError, httpx.HTTPError: the listing failed.
    """
    return {
        facts.key: facts
        for prefix in _prefixes(job)
        for facts in await cos.list_objects(job.region, job.bucket, prefix)
        if _is_key_of(job, prefix, facts.key)
    }


async def open_uploads(cos: CosClient, job: TrackedJob) -> list[UploadFacts]:
    """Return the open multipart uploads of this job.

    Raises:
        CloudRefusal, CredentialError, httpx.HTTPError: the listing failed.
    """
    return [
        upload
        for prefix in _prefixes(job)
        for upload in await cos.list_uploads(job.region, job.bucket, prefix)
        if _is_key_of(job, prefix, upload.key)
    ]


def _prefixes(job: TrackedJob) -> list[str]:
    """Return the prefixes to list: the job's own one, or each of its exact names."""
    return [key.key for key in job.keys] if job.exact_names else [job.object_prefix]


def _is_key_of(job: TrackedJob, prefix: str, key: str) -> bool:
    """Return whether a key listed under a prefix is the job's; split-off jobs share a prefix."""
    if job.exact_names:
        return key == prefix
    if not key.startswith(prefix):
        return False  # a listing that ignores the prefix shows the objects of other jobs
    return not job.is_part or any(
        is_disk_of(image, key, job.object_prefix) for image in job.image_ids
    )


async def head(cos: CosClient, job: TrackedJob, key: str) -> ObjectFacts | None:
    """Return the object under a key if it exists and belongs to the job; it may be empty."""
    facts = await cos.head_object(job.region, job.bucket, key)
    return facts if facts is not None and is_own(job, facts) else None


def is_own(job: TrackedJob, facts: ObjectFacts) -> bool:
    """Return whether the object under a key of the job belongs to it.

    Under an exact name it must have been written after the request was sent. If an ETag was
    recorded before the request (empty for no object), an object with another ETag is new. Otherwise
    an object is new if it was last modified in the second of sending or later, but only for a job
    with a TaskId, because then its export certainly began.
    """
    if not job.exact_names:
        return True
    baseline = next(key.baseline_etag for key in job.keys if key.key == facts.key)
    if baseline is not None:
        return facts.etag != baseline
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
