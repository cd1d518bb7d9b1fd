"""Verify accepted jobs: look up their objects, and record what they prove."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial

import anyio
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.cloud.cos import CosClient
from orchestrator.cloud.error_codes import UNDATED_OBJECT
from orchestrator.errors import CloudRefusal
from orchestrator.export_durations import FinishedExport, deadline
from orchestrator.job_states import JobState
from orchestrator.learned_vendor_facts import NO, YES, VendorFact
from orchestrator.model import NOT_DELIVERED, ObjectFacts, UploadFacts
from orchestrator.object_keys import missing_images
from orchestrator.settings import Settings
from orchestrator.store import Database
from orchestrator.store.transitions import Transition, apply_transition
from orchestrator.verification.bucket_trust import BucketTrust
from orchestrator.verification.delivery_lookup import DeliveryLookup, Listing, untrusted
from orchestrator.verification.evidence import Evidence, compare_with_keys, verdict
from orchestrator.verification.object_lookup import clocks_of
from orchestrator.verification.tracked_jobs import (
    TrackedJob,
    first_trace_column,
    save_first_trace,
    save_seen_objects,
)

_EMPTY_AFTER = timedelta(seconds=5)
"""Minimum age of an export at which an empty listing is no longer trusted."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one look-up of an accepted job has shown.

    Args:
        evidence: its objects, compared with its keys.
        state: verified; failed, if objects are missing and it is too late to wait for them; else
            accepted.
        uploads: keys that are still being written; ``None`` if they were not or may not be listed.
        trace_age: time since the first trace under the job's tag; ``None`` if there is none, or its
            time is known or says nothing.
        again_in: time after which another look may verify it; ``None``: as scheduled.
    """

    job: TrackedJob
    evidence: Evidence = field(default_factory=Evidence)
    state: JobState = JobState.ACCEPTED
    uploads: tuple[str, ...] | None = None
    trace_age: timedelta | None = None
    again_in: timedelta | None = None

    @property
    def is_final(self) -> bool:
        """Whether the job needs no further look-up."""
        return self.state is not JobState.ACCEPTED


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

    A key gets a HEAD request once a listing shows it. Where that does not decide, a second look is
    taken if the job is late, if its listing stays empty for long (it may be wrong, so every key
    gets a HEAD), or if the objects may be complete although they are not as expected.

    Args:
        trust: what is known of the answers about this bucket; this look-up may add to it.
        age: of the export.
        finished: the newest finished exports of its scope.
        wants_trace: list uploads too, because this run has seen no export in this bucket yet.

    Raises:
        CloudRefusal, CredentialError, httpx.HTTPError: the look-up failed, which proves nothing.
    """
    lookup = DeliveryLookup(cos, trust, job, age, clocks_of(cos))
    # Before the objects: an object that is not there while its upload is open will be complete.
    uploads = await lookup.uploads() if wants_trace else None
    listing = await lookup.listing()
    objects = await lookup.own_objects(listing)
    _learn(trust, job, objects, uploads, is_listed=not isinstance(listing, CloudRefusal))
    trace_age = lookup.trace_age(objects, uploads)
    evidence = compare_with_keys(job, objects)
    finding = Finding(job, evidence, verdict(evidence), trace_age=trace_age)
    deadline_of = partial(deadline, finished, job.size_gib, longest=settings.export_deadline)
    is_late = age >= deadline_of()
    is_long_empty = listing == {} and age >= max(settings.resend_after, _EMPTY_AFTER)
    may_be_complete = evidence.is_enough and lookup.writing_has_ended(objects)
    if not finding.is_final and (is_late or is_long_empty or may_be_complete):
        # uploads first: one that ends before the next request is then seen as an object
        uploads = await lookup.uploads()
        if may_be_complete:
            listing = await lookup.listing()
        if is_late or may_be_complete or not uploads:
            every_key = is_late or is_long_empty
            objects = await lookup.own_objects(listing, every_key=every_key)
        if is_long_empty and objects and not await lookup.listing():
            trust.learn(VendorFact.LISTING_TRUSTED, NO)
        evidence = compare_with_keys(job, objects)
        has_ended = not uploads and (
            is_late or lookup.writing_has_ended(objects, uploads_were_listed=uploads is not None)
        )
        may_be_written = uploads is None or bool(uploads)
        is_overdue = age >= deadline_of(being_written=may_be_written)
        state = verdict(evidence, has_ended=has_ended, is_overdue=is_overdue)
        if state is JobState.FAILED:
            _require_proof(trust, listing, lookup.undated)
        finding = Finding(
            job,
            evidence,
            state,
            None if uploads is None else tuple(upload.key for upload in uploads),
            trace_age or lookup.trace_age(objects, uploads),
        )
    are_unchanged = trust.are_unchanged(finding.evidence.found)
    if finding.state is JobState.VERIFIED and not are_unchanged:
        return replace(finding, state=JobState.ACCEPTED, again_in=trust.second_look)
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


def _require_proof(trust: BucketTrust, listing: Listing, undated: Sequence[str]) -> None:
    """Raise an error if objects that were not found may be there all the same.

    Without a listing they may be there under other names.

    Raises:
        CloudRefusal: the job must not fail: that would be a belief, not a finding.
    """
    if undated:
        message = f"{', '.join(undated)} may be older than the request"
        raise CloudRefusal(UNDATED_OBJECT, message, http_status=200)
    if isinstance(listing, CloudRefusal):
        raise listing
    if not trust.shows_absence:
        raise untrusted("have not shown any object of this program yet")


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
    """Record a first trace, and how a job has ended; return its state afterwards."""
    job = finding.job
    trace = first_trace_column(job, now, finding.trace_age)
    if not finding.is_final:
        await save_first_trace(connection, job, trace)
        return job.state
    is_verified = finding.state is JobState.VERIFIED
    made = _verified(finding, actor) if is_verified else _not_delivered(finding, actor)
    made = replace(made, changes={**made.changes, **trace})
    if not await apply_transition(connection, made, at=now):
        return job.state
    await save_seen_objects(connection, job, finding.evidence.found, now)
    return made.target


def _verified(finding: Finding, actor: str) -> Transition:
    job = finding.job
    evidence = finding.evidence
    caveats = evidence.caveats
    return Transition(
        job.job_id,
        JobState.ACCEPTED,
        JobState.VERIFIED,
        kind="verified",
        reason="seen in the bucket, with a warning" if caveats else "seen in the bucket",
        actor=actor,
        attempt=job.attempt,
        changes={"message": None, "remedy": None, "warnings": [*job.warnings, *caveats] or None},
        details={"objects": [_details(one) for one in evidence.found], "suspect": [*caveats]},
    )


def _not_delivered(finding: Finding, actor: str) -> Transition:
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
        "The export was accepted, but its deadline passed with "
        f"{len(evidence.found)} of {len(job.required)} objects in the bucket"
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
