"""Verify accepted jobs: a job is verified once all its objects are seen in the bucket."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial

import anyio
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.cloud.cos import CosClient
from orchestrator.errors import CloudRefusal
from orchestrator.export_durations import FinishedExport, deadline
from orchestrator.job_states import JobState
from orchestrator.model import NOT_DELIVERED, ImageFormat, ObjectFacts
from orchestrator.settings import Settings
from orchestrator.store import Database
from orchestrator.store.transitions import Transition, apply_transition
from orchestrator.verification.object_lookup import (
    head,
    is_own,
    listed_objects,
    open_uploads,
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

_GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Finding:
    """What one look-up of an accepted job has shown.

    Args:
        found: complete objects under required keys that are not empty.
        empty: required keys of objects with 0 bytes; no disk is empty.
        missing: required keys without an object.
        uploads: keys that are still being written; ``None`` if they may not be listed.
        trace_age: time since the first trace under the job's tag; ``None`` if there is none, or its
            time is known or says nothing.
        is_lost: objects are missing, and the export has taken too long to wait for them.
    """

    job: TrackedJob
    found: tuple[ObjectFacts, ...] = ()
    empty: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    uploads: tuple[str, ...] | None = ()
    trace_age: timedelta | None = None
    is_lost: bool = False

    @property
    def is_complete(self) -> bool:
        """Whether every required object exists."""
        return bool(self.found) and not self.empty and not self.missing

    @property
    def is_final(self) -> bool:
        """Whether the job is verified or lost, so that it needs no further look-up."""
        return self.is_complete or self.is_lost


async def check_delivery(
    cos: CosClient,
    job: TrackedJob,
    age: timedelta,
    finished: Sequence[FinishedExport],
    settings: Settings,
    *,
    wants_trace: bool = False,
) -> Finding:
    """Look up the required objects of a job once.

    A key gets a HEAD request once a listing shows it. If the listing stays empty for long, it may
    be wrong, and then every key gets one.

    Args:
        age: of the export.
        finished: the newest finished exports of its scope.
        wants_trace: list uploads too, because this run has seen no export in this bucket yet.

    Raises:
        CloudRefusal, CredentialError, httpx.HTTPError: the look-up failed, which proves nothing.
    """
    listed, finding = await _list_and_look(cos, job)
    moments = [facts.last_modified for facts in (listed or {}).values()]
    finding = replace(finding, trace_age=trace_age_of(cos, job, moments))
    if finding.is_complete:
        return finding
    deadline_of = partial(deadline, finished, job.size_gib, longest=settings.export_deadline)
    is_late = age >= deadline_of()
    is_unlisted = not listed and age >= max(settings.resend_after, _UNLISTED_AFTER)
    if not is_late and not is_unlisted and (listed or not wants_trace):
        return finding
    trace_age = finding.trace_age
    # uploads first: one that ends before the next request is then seen as an object
    try:
        uploads = await open_uploads(cos, job)
    except CloudRefusal:
        keys = None
    else:
        keys = tuple(upload.key for upload in uploads)
        if trace_age is None:
            trace_age = trace_age_of(cos, job, [upload.initiated for upload in uploads])
    if is_late or (is_unlisted and not keys):
        finding = await _look(cos, job)
    is_lost = is_late and age >= deadline_of(being_written=keys is None or bool(keys))
    return replace(finding, uploads=keys, trace_age=trace_age, is_lost=is_lost)


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
    await save_seen_objects(connection, job, finding.found, now)
    return made.target


async def _list_and_look(
    cos: CosClient, job: TrackedJob
) -> tuple[dict[str, ObjectFacts] | None, Finding]:
    """Return what is listed, and what exists of it; ``None`` if listing is not permitted."""
    try:
        listed = await listed_objects(cos, job)
    except CloudRefusal as refusal:
        if refusal.http_status != 403:
            raise
        try:
            return None, await _look(cos, job)
        except CloudRefusal:
            # the refusal of a HEAD request has no code, that of the listing has one
            raise refusal from None
    return listed, await _look(cos, job, listed)


async def _look(
    cos: CosClient, job: TrackedJob, listed: Mapping[str, ObjectFacts] | None = None
) -> Finding:
    """Send a HEAD request for each required key; of these, only for listed ones where known."""
    found: list[ObjectFacts] = []
    empty: list[str] = []
    missing: list[str] = []
    for key in (one.key for one in job.required):
        facts = await _facts(cos, job, key, listed)
        if facts is None:
            missing.append(key)
        elif facts.size == 0:
            empty.append(key)
        else:
            found.append(facts)
    return Finding(job, tuple(found), tuple(empty), tuple(missing))


async def _facts(
    cos: CosClient, job: TrackedJob, key: str, listed: Mapping[str, ObjectFacts] | None
) -> ObjectFacts | None:
    """Return the object under a key, if it exists and belongs to the job.

    Without a listing HEAD decides alone. With one, the object must be listed and HEAD must find it.
    If HEAD is not permitted, or shows another size or ETag, the facts come from the listing: it
    names its bucket and prefix, while the answer to a HEAD may be that of another request.
    """
    if listed is None:
        return await head(cos, job, key)
    if (shown := listed.get(key)) is None or not is_own(job, shown):
        return None
    try:
        facts = await head(cos, job, key)
    except CloudRefusal as refusal:
        if refusal.http_status != 403:
            raise
        return shown
    is_same = facts is None or (facts.size, facts.etag) == (shown.size, shown.etag)
    return facts if is_same else shown


def _verified(finding: Finding, actor: str) -> Transition:
    job = finding.job
    doubts = _size_warnings(job, finding.found)
    return Transition(
        job.job_id,
        JobState.ACCEPTED,
        JobState.VERIFIED,
        kind="verified",
        reason="seen in the bucket, with a size to be checked" if doubts else "seen in the bucket",
        actor=actor,
        attempt=job.attempt,
        changes={
            "message": " ".join(doubts) or None,
            "remedy": _CHECK_SIZES if doubts else None,
        },
        details={"objects": [_evidence(facts) for facts in finding.found], "suspect": doubts},
    )


def _size_warnings(job: TrackedJob, found: Iterable[ObjectFacts]) -> list[str]:
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


_CHECK_SIZES = "Check the file before you rely on it: a RAW file should be as long as its disk."


def _lost(finding: Finding, actor: str) -> Transition:
    job, uploads = finding.job, finding.uploads
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
            "found": [_evidence(facts) for facts in finding.found],
            "empty": list(finding.empty),
            "missing": list(finding.missing),
            "uploads": "not to be listed" if uploads is None else list(uploads),
        },
    )


def _what_came(finding: Finding) -> str:
    """Describe what exists and what is missing; of several images each by its id."""
    job, empty = finding.job, len(finding.empty)
    if not job.required:
        return (
            "An export exists in the bucket, but DescribeImages gave no facts about the image, so "
            "it is unknown how many objects belong to it."
        )
    said = (
        "The export was accepted, but by its deadline "
        f"{len(finding.found)} of {len(job.required)} objects are there"
        f"{f', {empty} without a byte' if empty else ''}"
    )
    found = {facts.key for facts in finding.found}
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


def _evidence(facts: ObjectFacts) -> dict[str, object]:
    return {"key": facts.key, "size": facts.size, "etag": facts.etag, "crc64": facts.crc64}
