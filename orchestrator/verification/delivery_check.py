"""Verify accepted jobs: look up their objects, and record what they prove."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial

import anyio
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.cloud.cos import CosClient
from orchestrator.cloud.error_codes import UNDATED_OBJECT, UNTRUSTED_READS
from orchestrator.errors import CloudRefusal
from orchestrator.export_durations import FinishedExport, deadline
from orchestrator.job_states import JobState
from orchestrator.model import NOT_DELIVERED, ObjectFacts, UploadFacts
from orchestrator.settings import Settings
from orchestrator.store import Database
from orchestrator.store.transitions import Transition, apply_transition
from orchestrator.vendor_facts import NO, YES, VendorFact
from orchestrator.verification.bucket_trust import BucketTrust
from orchestrator.verification.evidence import Evidence, has_come_to_rest, weigh
from orchestrator.verification.object_lookup import (
    clocks_of,
    is_own,
    listed_objects,
    open_uploads,
    time_since_request,
    trace_age_of,
)
from orchestrator.verification.tracked_jobs import (
    TrackedJob,
    first_trace_column,
    missing_images,
    save_first_trace,
    save_seen_objects,
)

_UNLISTED_AFTER = timedelta(seconds=5)
"""Minimum age of an export at which an empty listing is no longer trusted."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one look-up of an accepted job has shown.

    Args:
        evidence: its objects, compared with its keys.
        uploads: keys that are still being written; ``None`` if they were not or may not be listed.
        trace_age: time since the first trace under the job's tag; ``None`` if there is none, or its
            time is known or says nothing.
        is_complete: everything that the export writes is there and has its final size.
        is_lost: objects are missing, and the export has taken too long to wait for them.
        again_in: time after which another look may make it complete; ``None``: as scheduled.
    """

    job: TrackedJob
    evidence: Evidence = field(default_factory=Evidence)
    uploads: tuple[str, ...] | None = None
    trace_age: timedelta | None = None
    is_complete: bool = False
    is_lost: bool = False
    again_in: timedelta | None = None

    @property
    def is_final(self) -> bool:
        """Whether the job is verified or lost, so that it needs no further look-up."""
        return self.is_complete or self.is_lost


async def check_delivery(
    cos: CosClient,
    trust: BucketTrust,
    job: TrackedJob,
    age: timedelta,
    finished: Sequence[FinishedExport],
    settings: Settings,
    *,
    wants_trace: bool = False,
) -> Finding:
    """Look up the objects of a job once.

    A key gets a HEAD request once a listing shows it. If the listing stays empty for long, it may
    be wrong, and then every key gets one. Objects that leave doubts are looked up again, after the
    uploads, when nothing has come for a while.

    Args:
        trust: what is known of the answers about this bucket; this look-up may add to it.
        age: of the export.
        finished: the newest finished exports of its scope.
        wants_trace: list uploads too, because this run has seen no export in this bucket yet.

    Raises:
        CloudRefusal, CredentialError, httpx.HTTPError: the look-up failed, which proves nothing.
    """
    # Before the objects: an object that is not there while its upload is open will be complete.
    uploads = await _uploads(cos, trust, job) if wants_trace else None
    listed = await _listed(cos, trust, job)
    objects, undated = await _own_objects(cos, trust, job, age, listed)
    _learn(trust, job, objects, uploads, is_listed=isinstance(listed, dict))
    trace_age = _trace_age(cos, job, objects, uploads)
    evidence = weigh(job, objects)
    finding = Finding(job, evidence, trace_age=trace_age, is_complete=evidence.is_certain)
    rests = partial(
        has_come_to_rest,
        since_request=time_since_request(job, age),
        clocks=clocks_of(cos),
        uploads_are_visible=trust.uploads_are_visible,
    )
    deadline_of = partial(deadline, finished, job.size_gib, longest=settings.export_deadline)
    is_late = age >= deadline_of()
    is_unlisted = listed == {} and age >= max(settings.resend_after, _UNLISTED_AFTER)
    may_be_whole = evidence.is_enough and rests(objects)
    if not evidence.is_certain and (is_late or is_unlisted or may_be_whole):
        # uploads first: one that ends before the next request is then seen as an object
        uploads = await _uploads(cos, trust, job)
        if may_be_whole:
            listed = await _listed(cos, trust, job)
        if is_late or may_be_whole or not uploads:
            objects, undated = await _own_objects(
                cos, trust, job, age, listed, every_key=is_late or is_unlisted
            )
        if is_unlisted and objects and not await _listed(cos, trust, job):
            trust.learn(VendorFact.LISTING_TRUSTED, NO)
        evidence = weigh(job, objects)
        are_visible = trust.uploads_are_visible and uploads is not None
        has_waited = is_late or rests(objects, uploads_are_visible=are_visible)
        is_complete = evidence.is_certain or (evidence.is_enough and has_waited and not uploads)
        being_written = uploads is None or bool(uploads)
        is_lost = not is_complete and age >= deadline_of(being_written=being_written)
        if is_lost:
            _require_proof(trust, undated)
        finding = Finding(
            job,
            evidence,
            None if uploads is None else tuple(upload.key for upload in uploads),
            trace_age or _trace_age(cos, job, objects, uploads),
            is_complete,
            is_lost,
        )
    if finding.trace_age is not None:
        trust.learn_first_trace(age - finding.trace_age)
    are_unchanged = trust.are_unchanged(evidence.found)
    if finding.is_complete and not are_unchanged:
        return replace(finding, is_complete=False, again_in=trust.second_look)
    return finding


def _learn(
    trust: BucketTrust,
    job: TrackedJob,
    objects: Mapping[str, ObjectFacts],
    uploads: Sequence[UploadFacts] | None,
    *,
    is_listed: bool,
) -> None:
    """Take note of what a look-up shows of the vendor."""
    tagged = [key for key in objects if job.is_tagged(key)]
    uploading = [one.key for one in uploads or () if job.is_tagged(one.key)]
    if tagged or uploading:
        trust.learn(VendorFact.PREFIX_HONOURED, YES)
    if len(tagged) < len(objects) and not job.exact_names:
        trust.learn(VendorFact.PREFIX_HONOURED, NO)
    if tagged and is_listed:
        trust.learn(VendorFact.LISTING_TRUSTED, YES)
    if is_listed and not objects.keys() >= set(uploading):
        trust.learn_completeness()
    if job.named:
        trust.learn(VendorFact.COS_PATHS_FORM, job.named[0].form)


def _require_proof(trust: BucketTrust, undated: Sequence[str]) -> None:
    """Raise an error if objects that were not found may be there all the same.

    Raises:
        CloudRefusal: the job must not fail: that would be a belief, not a finding.
    """
    if undated:
        message = f"{', '.join(undated)} may be older than the request"
        raise CloudRefusal(UNDATED_OBJECT, message, http_status=200)
    if not trust.shows_absence:
        raise _untrusted("have not shown any object of this program yet")


def _untrusted(listings: str) -> CloudRefusal:
    message = f"its listings {listings}, and HEAD proves nothing"
    return CloudRefusal(UNTRUSTED_READS, message, http_status=200)


async def save_findings(
    database: Database, actor: str, findings: Sequence[Finding]
) -> list[JobState]:
    """Record findings in one transaction; return the state of each job afterwards."""
    with anyio.CancelScope(shield=True):
        async with database.write() as connection:
            now = await database.now(connection)
            # in order of the ids, so that two transactions do not wait for each other's rows
            in_order = sorted(findings, key=lambda one: one.job.job_id)
            states = {one.job.job_id: await _save(connection, one, actor, now) for one in in_order}
    return [states[one.job.job_id] for one in findings]


async def _save(
    connection: AsyncConnection, finding: Finding, actor: str, now: datetime
) -> JobState:
    """Record a first trace, and that a job is verified or lost; return its state afterwards."""
    job = finding.job
    trace = first_trace_column(job, now, finding.trace_age)
    if not finding.is_final:
        await save_first_trace(connection, job, trace)
        return job.state
    made = _verified(finding, actor) if finding.is_complete else _lost(finding, actor)
    made = replace(made, changes={**made.changes, **trace})
    if not await apply_transition(connection, made, at=now):
        return job.state
    await save_seen_objects(connection, job, finding.evidence.found, now)
    return made.target


async def _uploads(cos: CosClient, trust: BucketTrust, job: TrackedJob) -> list[UploadFacts] | None:
    """Return the open uploads of a job; ``None`` if they may not be listed.

    Raises:
        CloudRefusal, CredentialError, httpx.HTTPError: the listing failed, which proves nothing.
    """
    try:
        uploads = await open_uploads(cos, trust, job)
    except CloudRefusal as refusal:
        if not 400 <= refusal.http_status < 500:
            raise
        return None
    if uploads:
        trust.learn(VendorFact.UPLOADS_VISIBLE, YES)
    return uploads


async def _listed(
    cos: CosClient, trust: BucketTrust, job: TrackedJob
) -> dict[str, ObjectFacts] | CloudRefusal:
    """Return the objects under the keys of a job, or why only HEAD can tell."""
    listed: dict[str, ObjectFacts] | CloudRefusal = {}
    if trust.listing:
        try:
            listed = await listed_objects(cos, trust, job)
        except CloudRefusal as refusal:
            if refusal.http_status != 403:
                raise
            return refusal
    return listed if trust.listing else _untrusted("show other keys than asked for")


async def _own_objects(
    cos: CosClient,
    trust: BucketTrust,
    job: TrackedJob,
    age: timedelta,
    listed: dict[str, ObjectFacts] | CloudRefusal,
    *,
    every_key: bool = False,
) -> tuple[dict[str, ObjectFacts], list[str]]:
    """Return the objects that belong to a job, and keys of which it cannot be told.

    Without a listing HEAD decides alone. With one, an object must be listed and HEAD must find it.
    If HEAD is not trusted or permitted, or shows another size or ETag, the facts come from the
    listing: it names its bucket and prefix, while the answer to a HEAD may be that of another
    request.

    Args:
        every_key: send a HEAD for each required key, also where the listing does not show it.
    """
    since = time_since_request(job, age)
    sent_at = [] if since is None else [now - since for now in clocks_of(cos)]
    denied = listed if isinstance(listed, CloudRefusal) else None
    if denied and not trust.head:
        raise denied
    objects = {} if isinstance(listed, CloudRefusal) else dict(listed)
    for key in (one.key for one in job.required if trust.head):
        if shown := objects.get(key):
            is_wanted = is_own(job, shown, sent_at)
        else:
            is_wanted = every_key or denied is not None
        if is_wanted:
            objects.pop(key, None)
            if facts := await _facts(cos, job, key, shown, denied):
                objects[key] = facts
    owned = {key: is_own(job, facts, sent_at) for key, facts in objects.items()}
    own = {key: facts for key, facts in objects.items() if owned[key]}
    return own, [key for key, is_owned in owned.items() if is_owned is None]


async def _facts(
    cos: CosClient,
    job: TrackedJob,
    key: str,
    shown: ObjectFacts | None,
    denied: CloudRefusal | None,
) -> ObjectFacts | None:
    """Return the object under a key as HEAD shows it, or as a listing did; ``None`` without any.

    Args:
        shown: as a listing shows it.
        denied: why there is no listing. The refusal of a HEAD request has no code, but this has.
    """
    try:
        facts = await cos.head_object(job.region, job.bucket, key)
    except CloudRefusal as refusal:
        if refusal.http_status != 403:
            raise
        if shown is None:
            raise denied or refusal from None
        return shown
    is_same = not (facts and shown) or (facts.size, facts.etag) == (shown.size, shown.etag)
    return facts if is_same else shown


def _trace_age(
    cos: CosClient,
    job: TrackedJob,
    objects: Mapping[str, ObjectFacts],
    uploads: Sequence[UploadFacts] | None,
) -> timedelta | None:
    """Return the time since the first trace under the job's tag; see `trace_age_of`."""
    moments = [one.last_modified for one in objects.values() if job.is_tagged(one.key)]
    return trace_age_of(cos, job, [*moments, *(one.initiated for one in uploads or ())])


def _verified(finding: Finding, actor: str) -> Transition:
    job = finding.job
    evidence = finding.evidence
    doubts = evidence.doubts
    return Transition(
        job.job_id,
        JobState.ACCEPTED,
        JobState.VERIFIED,
        kind="verified",
        reason="seen in the bucket, with a warning" if doubts else "seen in the bucket",
        actor=actor,
        attempt=job.attempt,
        changes={"message": None, "remedy": None, "warnings": [*job.warnings, *doubts] or None},
        details={"objects": [_details(one) for one in evidence.found], "suspect": [*doubts]},
    )


def _lost(finding: Finding, actor: str) -> Transition:
    job, evidence, uploads = finding.job, finding.evidence, finding.uploads
    return Transition(
        job.job_id,
        JobState.ACCEPTED,
        JobState.FAILED,
        kind="failed",
        reason="not delivered",
        actor=actor,
        attempt=job.attempt,
        known={"accepted_at": job.accepted_at},
        changes={
            "maybe_applied": True,
            "code": NOT_DELIVERED,
            "message": _what_came(finding),
            "remedy": _remedy(job),
        },
        details={
            "found": [_details(facts) for facts in evidence.found],
            "empty": list(evidence.too_small),
            "missing": list(evidence.missing),
            "uploads": "not to be listed" if uploads is None else list(uploads),
        },
    )


def _what_came(finding: Finding) -> str:
    """Describe what exists and what is missing; of several images each by its id."""
    job, evidence = finding.job, finding.evidence
    too_small = len(evidence.too_small)
    if not job.required:
        return (
            "An export exists in the bucket, but DescribeImages gave no facts about the image, so "
            "it is unknown how many objects belong to it."
        )
    said = (
        "The export was accepted, but by its deadline "
        f"{len(evidence.found)} of {len(job.required)} objects are there"
        f"{f', {too_small} too small to be a disk image' if too_small else ''}"
    )
    found = {facts.key for facts in evidence.found}
    required = [key.key for key in job.required]
    late = missing_images(job.image_ids, job.object_prefix, required, found)
    if len(job.image_ids) < 2 or not late:
        return f"{said}."
    whole = [image for image in job.image_ids if image not in late]
    return f"{said}. Arrived: {', '.join(whole) or 'none'}. Missing: {', '.join(late)}."


def _remedy(job: TrackedJob) -> str:
    if not job.required:
        return (
            f"Check in the bucket under {job.object_prefix!r} that each disk of the image has "
            "its file. Grant cvm:DescribeImages, so that jobs enqueued later know what to expect."
        )
    return (
        "Check the image's state in the console, or ask the vendor about the task; then "
        f"`orchestrator retry --job {job.job_id}`, which looks for a late object first."
    )


def _details(facts: ObjectFacts) -> dict[str, object]:
    return {"key": facts.key, "size": facts.size, "etag": facts.etag, "crc64": facts.crc64}
