"""Look up the uploads and objects of one job in its bucket."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar

from orchestrator.cloud.clock_skew import TOLERATED_DRIFT
from orchestrator.cloud.cos import CosClient
from orchestrator.errors import CloudRefusal
from orchestrator.learned_vendor_facts import NO, VendorFact
from orchestrator.model import ObjectFacts, UploadFacts
from orchestrator.object_keys import is_disk_of
from orchestrator.verification.bucket_trust import BucketTrust, finds_missing_key
from orchestrator.verification.tracked_jobs import TrackedJob

_CLOCK_ERROR = timedelta(seconds=5)
"""Uncertainty of the clock of COS: a Date header has whole seconds, and the answer takes time."""

_Entry = TypeVar("_Entry", ObjectFacts, UploadFacts)


@dataclass(frozen=True, slots=True)
class LookupResult:
    """What one look-up found.

    Args:
        uploads: keys that are being written.
        objects: objects that are there.
        age: time since the first of them was left; ``None`` if that says nothing about this job.
        is_listed: the bucket was listed; if not, HEAD was answered for the job's keys, and what was
            not found may be there.
    """

    uploads: tuple[str, ...] = ()
    objects: tuple[ObjectFacts, ...] = ()
    age: timedelta | None = None
    is_listed: bool = True

    def __bool__(self) -> bool:
        return bool(self.uploads or self.objects)


async def look(cos: CosClient, trust: BucketTrust, job: TrackedJob) -> LookupResult:
    """Look up what a job has left: first its open uploads, then its objects.

    In this order an upload that ends in between is seen as an object.

    Everything under the job's own tag belongs to it. Under an exact name only an object that has
    changed since before the first request does. Nothing found proves nothing where listings are not
    trusted. Where they are refused, a HEAD for each key of the job is the look-up. For a job that
    is not locatable nothing is asked.

    Raises:
        CloudRefusal, CredentialError, httpx.HTTPError: a request failed, so the look-up proves
            nothing.
    """
    own = [key.key for key in job.keys if job.exact_names or job.is_tagged(key.key)]
    uploads: list[UploadFacts] = []
    listed: dict[str, ObjectFacts] = {}
    refused = None
    try:
        uploads = await open_uploads(cos, trust, job)
        listed = await listed_objects(cos, trust, job)
    except CloudRefusal as refusal:
        if refusal.http_status != 403:
            raise
        if not (own and trust.is_head_trusted):
            if await finds_missing_key(cos, job) is not None:  # HEAD is answered
                trust.record_listing(is_refused=True)
            raise
        refused = refusal
    objects = tuple(listed.values())
    if refused or (job.exact_names and trust.is_head_trusted):
        # a listing may still show the object that was there before
        keys = own if refused else list(listed)
        heads = [await head_or_listed(cos, job, key, listed.get(key), refused) for key in keys]
        objects = tuple(facts for facts in heads if facts is not None)
    if _prefixes(job):  # otherwise nothing was listed
        trust.record_listing(is_refused=refused is not None)
    objects = tuple(facts for facts in objects if is_own(job, facts, ()))
    moments = [facts.last_modified for facts in objects]
    moments += [upload.initiated for upload in uploads]
    writing = tuple(upload.key for upload in uploads)
    age = trace_age_of(job, moments, clocks_of(cos))
    return LookupResult(writing, objects, age, is_listed=refused is None)


async def head_or_listed(
    cos: CosClient,
    job: TrackedJob,
    key: str,
    shown: ObjectFacts | None,
    refused: CloudRefusal | None = None,
) -> ObjectFacts | None:
    """Return a key's object as HEAD shows it, or as a listing did; ``None`` if none.

    Args:
        shown: as a listing shows it.
        refused: why there is no listing.
    """
    try:
        facts = await cos.head_object(job.region, job.bucket, key)
    except CloudRefusal as refusal:
        if refusal.http_status != 403:
            raise
        if shown is None:
            # the refusal of a HEAD request has no code, that of a listing has one
            raise refused or refusal from None
        return shown
    is_same = not (facts and shown) or (facts.size, facts.etag) == (shown.size, shown.etag)
    return facts if is_same else shown


def trace_age_of(
    job: TrackedJob, moments: Sequence[datetime | None], clocks: Sequence[datetime]
) -> timedelta | None:
    """Return the minimum age of the oldest of these traces, by the clocks of COS.

    It is ``None`` without a trace, and where it would not show how soon exports become visible.
    """
    if not job.needs_first_trace or not moments:
        return None
    known = [moment for moment in moments if moment is not None]
    if not known or not clocks:
        return timedelta()
    return max(timedelta(), min(clocks) - min(known) - TOLERATED_DRIFT)


async def listed_objects(
    cos: CosClient, trust: BucketTrust, job: TrackedJob
) -> dict[str, ObjectFacts]:
    """Return the objects under the keys of this job, by key, as a listing shows them.

    Under a key without the job's tag it may be an object of another job.

    Raises:
        CloudRefusal, CredentialError, httpx.HTTPError: the listing failed.
    """
    prefixes = _prefixes(job)
    if not job.exact_names:
        prefixes += [key.key for key in job.required if not job.is_tagged(key.key)]
    found: dict[str, ObjectFacts] = {}
    for prefix in prefixes:
        listed = await cos.list_objects(job.region, job.bucket, prefix)
        found |= {one.key: one for one in _of_job(job, trust, prefix, listed)}
    return found


async def open_uploads(cos: CosClient, trust: BucketTrust, job: TrackedJob) -> list[UploadFacts]:
    """Return the open multipart uploads under the job's tag or its exact names.

    Raises:
        CloudRefusal, CredentialError, httpx.HTTPError: the listing failed.
    """
    found: list[UploadFacts] = []
    for prefix in _prefixes(job):
        listed = await cos.list_uploads(job.region, job.bucket, prefix)
        found += _of_job(job, trust, prefix, listed)
    return found


def _prefixes(job: TrackedJob) -> list[str]:
    """Return the prefixes to list: the job's own one, or each of its exact names."""
    return [key.key for key in job.keys] if job.exact_names else [job.object_prefix]


def _of_job(
    job: TrackedJob, trust: BucketTrust, prefix: str, listed: Sequence[_Entry]
) -> list[_Entry]:
    """Return the listed entries under the job's keys.

    If the listing shows keys without the prefix, learn that listings are not to be trusted.
    """
    asked = [one for one in listed if one.key.startswith(prefix)]
    if len(asked) < len(listed):
        trust.learn(VendorFact.LISTING_TRUSTED, NO)
    if not job.is_tagged(prefix):
        return [one for one in asked if one.key == prefix]
    # a split-off job shares its prefix with the whole one
    return [
        one
        for one in asked
        if not job.is_part
        or any(is_disk_of(image, one.key, job.object_prefix) for image in job.image_ids)
    ]


def clocks_of(cos: CosClient) -> tuple[datetime, ...]:
    """Return the possible times of COS: by this machine, and by its Date headers.

    Either may be wrong. Before the first Date header there are none.
    """
    now, clock = cos.clock.local.now(), cos.clock
    return (now, now + clock.last_offset) if clock.is_known else ()


def time_since_request(job: TrackedJob, age: timedelta) -> timedelta | None:
    """Return the time since the request of a job; ``None`` if not known.

    Args:
        age: of the export.
    """
    if job.began_at is None or job.sent_at is None:
        return None
    return age + (job.began_at - job.sent_at)


def is_own(job: TrackedJob, facts: ObjectFacts, sent_at: Sequence[datetime]) -> bool | None:
    """Return whether an object was written for the job; ``None`` if that is unclear.

    The object is under a key of the job. Everything under the job's own tag was written for it.
    Elsewhere it must have been written after the request: it has another ETag than the one that was
    recorded before (empty for no object), or a later time. The same image exported again may have
    the same ETag; then the time must be later for certain. By its time alone only a job with a
    TaskId has an object: its export certainly began.

    Args:
        sent_at: when its request was sent, by each of the clocks; empty if not known.
    """
    if job.is_tagged(facts.key):
        return True
    baseline = next((key.baseline_etag for key in job.keys if key.key == facts.key), None)
    if baseline is not None and facts.etag != baseline:
        return True
    if job.reconciled:
        return False
    return _is_later(facts.last_modified, sent_at, is_same=baseline is not None)


def _is_later(
    written_at: datetime | None, sent_at: Sequence[datetime], *, is_same: bool
) -> bool | None:
    """Return whether an object was written after a request; ``None`` is unclear.

    Args:
        is_same: it has the ETag from before the request, so only what is certain counts.
    """
    if not sent_at or written_at is None:
        return False if is_same else None
    if is_same:
        return written_at > max(sent_at) + _CLOCK_ERROR
    if written_at >= max(sent_at).replace(microsecond=0):
        return True
    return False if written_at < min(sent_at) - _CLOCK_ERROR else None


async def baselines(cos: CosClient, trust: BucketTrust, job: TrackedJob) -> dict[str, str]:
    """Return the ETags under the exact names before the request.

    What exists there is not the job's own.

    Returns:
        The ETag of each key that was not looked at before; empty where there is no object.

    Raises:
        CloudRefusal, CredentialError, httpx.HTTPError: a look-up failed; the job must not be sent
            yet.
    """
    wanted = [key.key for key in job.keys if key.baseline_etag is None]
    found: Mapping[str, ObjectFacts | None]
    try:
        if trust.is_head_trusted:
            found = {key: await cos.head_object(job.region, job.bucket, key) for key in wanted}
        else:
            found = await listed_objects(cos, trust, job)
    except CloudRefusal as refusal:
        if refusal.http_status != 403 or not (trust.is_head_trusted and trust.is_listing_trusted):
            raise
        found = await listed_objects(cos, trust, job)
    return {key: facts.etag if (facts := found.get(key)) else "" for key in wanted}
