"""Describe the images of waiting jobs: their disks and sizes, and so the object keys to expect.

A description is useful: the largest images are sent first, and every expected key is known. It is
not required: if DescribeImages does not answer for a while, jobs are sent without it.
"""

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Any

import anyio
import httpx
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.cloud.credentials.base import Credential
from orchestrator.cloud.cvm import MAX_IMAGES
from orchestrator.cloud.error_classification import code_for_exception
from orchestrator.cloud.error_codes import code_for
from orchestrator.errors import CloudRefusal
from orchestrator.limits.admission import DESCRIBE
from orchestrator.limits.backoff import backoff
from orchestrator.limits.concurrency_limit import has_job
from orchestrator.model import Disk, ImageFacts, ImageFormat, Outcome, Reaction, Scope
from orchestrator.store import BusyRetry
from orchestrator.store.tables import CLAIMABLE, UNDESCRIBED, job_images, jobs, objects, scopes
from orchestrator.wakeup import Wakeup
from orchestrator.worker.run_context import RunContext

_IDLE = 0.5
_MAX_IDLE = 5.0

_GIVE_UP_AFTER = 30.0
"""Seconds of failed calls after which the waiting jobs are sent without a description."""

_NOT_ALLOWED = frozenset({"AuthFailure.UnauthorizedOperation", "UnauthorizedOperation"})


class ImageDescriber:
    """Describe the waiting jobs of one endpoint, up to 100 images a call, in sending order.

    An image that DescribeImages does not know is left to ExportImages, whose refusal names the
    reason. An account without permission to describe images sends without sizes and expected keys.

    Args:
        regions: returns the regions of the endpoint.
        sendable: returns which jobs may be sent at all, as a condition on the table of jobs.
        in_flight: limits the requests in flight, exports included.
        notify: takes sentences for the user.
    """

    def __init__(
        self,
        context: RunContext,
        profile: str,
        *,
        regions: Callable[[], Sequence[str]],
        sendable: Callable[[], sa.ColumnElement[bool]],
        in_flight: anyio.Semaphore,
        busy_retry: BusyRetry,
        wakeup: Wakeup,
        notify: Callable[[str], None],
    ) -> None:
        self._database = context.database
        self._cvm = context.cvm
        self._admission = context.admission
        self._profile = profile
        self._regions = regions
        self._last_region = ""
        self._sendable = sendable
        self._in_flight = in_flight
        self._busy_retry = busy_retry
        self._wakeup = wakeup
        self._notify = notify
        self._is_forbidden = False
        self._failures = 0
        self._failing_since: float | None = None
        self._has_warned = False
        self._has_warned_of_clock = False

    async def run(self) -> None:
        """Describe jobs until cancelled."""
        while True:
            has_changed = await self._busy_retry.retry(self._describe_next)
            if not self._cvm.clock.is_known:
                has_changed = await self._busy_retry.retry(self._learn_time) or has_changed
            if has_changed:
                self._wakeup.notify()
            else:
                pause = backoff(self._failures, 1.0, first=_IDLE, longest=_MAX_IDLE)
                await anyio.sleep(pause.total_seconds())

    async def _describe_next(self) -> bool:
        """Describe the next jobs of one region; return whether any job may be sent now."""
        waiting = await self._next_waiting()
        if not waiting:
            return False
        region = waiting[0].region
        images = list(dict.fromkeys(image for row in waiting for image in row.image_ids))
        facts = await self._describe(region, images)
        if facts is None:
            if not self._gives_up():
                return False
            facts = {}
        async with self._database.write() as connection:
            await _save(connection, waiting, facts, await self._database.now(connection))
        return True

    def _gives_up(self) -> bool:
        """Return whether jobs are to be sent undescribed, and warn the user once."""
        since = self._failing_since
        if since is None or anyio.current_time() - since < _GIVE_UP_AFTER:
            return False
        if not self._has_warned:
            self._has_warned = True
            self._notify(
                f"DescribeImages has failed for {_GIVE_UP_AFTER:g} s. Jobs are sent without sizes "
                "and expected object keys until it answers again."
            )
        return True

    async def _learn_time(self) -> bool:
        """Ask about any image, only to learn the server's time: claims are signed with it."""
        async with self._database.read() as connection:
            query = (
                sa.select(jobs.c.region, jobs.c.image_ids)
                .where(
                    sa.text(CLAIMABLE),
                    jobs.c.profile == self._profile,
                    jobs.c.region.in_(self._regions()),
                    self._sendable(),
                )
                .limit(1)
            )
            row = (await connection.execute(query)).first()
        if row is None:
            return False
        facts = await self._describe(row.region, row.image_ids[:MAX_IMAGES])
        is_known = self._cvm.clock.is_known
        if facts is not None and not is_known and not self._has_warned_of_clock:
            self._has_warned_of_clock = True
            self._notify(
                f"{self._cvm.host(row.region)} sends no Date header. Without the server's time a "
                "signature may live longer than this program believes, so nothing is sent."
            )
        return is_known

    async def _next_waiting(self) -> list[Any]:
        """Return the next jobs of one region; the regions take turns."""
        async with self._database.read() as connection:
            found = await _undescribed(connection, self._profile, self._regions())
            later = [region for region in found if region > self._last_region]
            for region in later + [region for region in found if region <= self._last_region]:
                sendable = self._sendable()
                if waiting := await _waiting(connection, self._profile, region, sendable):
                    self._last_region = region
                    return waiting
        return []

    async def _describe(self, region: str, images: Sequence[str]) -> dict[str, ImageFacts] | None:
        """Return the facts about these images; ``None`` if the call must be repeated."""
        facts: dict[str, ImageFacts] = {}
        for start in range(0, len(images), MAX_IMAGES):
            if self._is_forbidden:
                break
            found = await self._call(region, images[start : start + MAX_IMAGES])
            if found is None:
                return None
            facts |= found
        return facts

    async def _call(self, region: str, images: Sequence[str]) -> dict[str, ImageFacts] | None:
        """Call DescribeImages once; return ``None`` if the call must be repeated."""
        host = self._cvm.host(region)
        credential = await self._admission.credential()
        if credential is None or self._admission.halts.blocks_endpoint(host):
            return None
        permit = await self._admission.acquire_permit(DESCRIBE, host)
        await permit.wait()
        asked_at = anyio.current_time()
        try:
            async with self._in_flight:
                found = await self._cvm.describe_images(region, images, credential=credential)
        except CloudRefusal as refusal:
            return await self._handle_refusal(refusal, region, images, credential, asked_at)
        except httpx.HTTPError as error:
            outcome = Outcome(code_for_exception(error), str(error) or type(error).__name__)
            await self._learn(host, region, outcome, credential, asked_at)
            return None
        self._admission.record_response(host)
        self._failures, self._failing_since = 0, None
        return {image.image_id: image for image in found}

    async def _handle_refusal(
        self,
        refusal: CloudRefusal,
        region: str,
        images: Sequence[str],
        credential: Credential,
        asked_at: float,
    ) -> dict[str, ImageFacts] | None:
        host = self._cvm.host(region)
        if not refusal.code.startswith("Http"):
            self._admission.record_response(host)
        code = code_for(refusal.code)
        if code.name in _NOT_ALLOWED:
            self._is_forbidden = True
            self._notify(
                "No permission to call DescribeImages: sizes and disks stay unknown. "
                "Grant cvm:DescribeImages to have the largest images sent first."
            )
            return {}
        if code.reaction is Reaction.FAIL:
            return await self._describe_without_unknown(refusal, region, images)
        outcome = Outcome(code, refusal.service_message, http_status=refusal.http_status)
        await self._learn(host, region, outcome, credential, asked_at)
        return None

    async def _describe_without_unknown(
        self, refusal: CloudRefusal, region: str, images: Sequence[str]
    ) -> dict[str, ImageFacts] | None:
        """Repeat a call that one unknown image made fail: without it, or else in two halves."""
        if len(images) == 1 or "InvalidImageId" not in refusal.code:
            return {}
        rest = [image for image in images if image not in refusal.message]
        middle = len(images) // 2
        parts = [images[:middle], images[middle:]] if len(rest) == len(images) else [rest]
        facts: dict[str, ImageFacts] = {}
        for part in filter(None, parts):
            found = await self._call(region, part)
            if found is None:
                return None
            facts |= found
        return facts

    async def _learn(
        self, host: str, region: str, outcome: Outcome, credential: Credential, asked_at: float
    ) -> None:
        self._failures += 1
        # if the endpoint cannot be reached, exports cannot be sent either, so nothing is gained
        if self._failing_since is None and outcome.code.reaction is not Reaction.PAUSE:
            self._failing_since = anyio.current_time()
        if outcome.code.reaction is Reaction.SLOW:
            rate_limiter = self._admission.rate_limiter(DESCRIBE, host)
            async with self._database.write() as connection:
                await rate_limiter.slow_down(connection)
        await self._admission.record_outcome(
            DESCRIBE,
            host,
            outcome,
            scope_values={Scope.REGION: region},
            asked_at=asked_at,
            credential=credential,
        )


async def _undescribed(
    connection: AsyncConnection, profile: str, regions: Sequence[str]
) -> list[str]:
    """Return the regions, of those given, in which a job waits to be described."""
    asked = {"profile": profile, "regions": regions}
    return list((await connection.execute(_TO_DESCRIBE, asked)).scalars())


_TO_DESCRIBE = (
    sa.select(scopes.c.region)
    .where(
        scopes.c.profile == sa.bindparam("profile"),
        scopes.c.region.in_(sa.bindparam("regions", expanding=True)),
        has_job(sa.literal_column(UNDESCRIBED, sa.Boolean)),
    )
    .order_by(scopes.c.region)
)


async def _waiting(
    connection: AsyncConnection, profile: str, region: str, sendable: sa.ColumnElement[bool]
) -> list[Any]:
    """Return up to 100 jobs of one region, in the order in which they will be sent."""
    columns = (jobs.c[name] for name in _NEEDED)
    query = (
        sa.select(*columns)
        .where(sa.text(UNDESCRIBED), jobs.c.profile == profile, jobs.c.region == region, sendable)
        .order_by(jobs.c.priority.desc(), jobs.c.id)
        .limit(MAX_IMAGES)
    )
    return list((await connection.execute(query)).all())


_NEEDED = ("id", "region", "image_ids", "object_prefix", "format", "only_root_disk")


async def _save(
    connection: AsyncConnection,
    waiting: Sequence[Any],
    facts: dict[str, ImageFacts],
    now: datetime,
) -> None:
    """Save what is known, in few statements: claims wait for this transaction to end."""
    fresh = await _still_waiting(connection, [row.id for row in waiting])
    described: list[dict[str, Any]] = []
    expected: list[dict[str, Any]] = []
    states: list[dict[str, Any]] = []
    for row in waiting:
        if row.id not in fresh:
            continue  # another process has described it
        disks = list(_expected(row, facts))
        expected += disks
        described.append({"this": row.id, "size": sum(disk["disk_gib"] for disk in disks)})
        for position, image_id in enumerate(row.image_ids):
            if (image := facts.get(image_id)) is not None:
                states.append({"this": row.id, "place": position, "said": image.state})
    await _execute_many(connection, _DESCRIBED.values(described_at=now), described)
    await _execute_many(connection, objects.insert(), expected)
    await _execute_many(connection, _IMAGE_STATE, states)


_DESCRIBED = (
    jobs.update().where(jobs.c.id == sa.bindparam("this")).values(size_gib=sa.bindparam("size"))
)
_IMAGE_STATE = (
    job_images.update()
    .where(job_images.c.job_id == sa.bindparam("this"))
    .where(job_images.c.position == sa.bindparam("place"))
    .values(state=sa.bindparam("said"))
)


async def _still_waiting(connection: AsyncConnection, job_ids: Sequence[int]) -> set[int]:
    query = (
        sa.select(jobs.c.id)
        .where(jobs.c.id.in_(job_ids), jobs.c.described_at.is_(None))
        .with_for_update()
    )
    return set((await connection.execute(query)).scalars())


async def _execute_many(
    connection: AsyncConnection, statement: sa.Executable, rows: list[dict[str, Any]]
) -> None:
    if rows:
        await connection.execute(statement, rows)


def _expected(row: Any, facts: dict[str, ImageFacts]) -> Iterator[dict[str, Any]]:
    """Yield the objects that an export will write, as far as its images are known."""
    for image in (facts[image_id] for image_id in row.image_ids if image_id in facts):
        for disk in exported_disks(image, only_root_disk=row.only_root_disk):
            key = object_key(row.object_prefix, image.image_id, disk, ImageFormat(row.format))
            yield {"job_id": row.id, "key": key, "expected": True, "disk_gib": disk.size_gib}


def exported_disks(image: ImageFacts, *, only_root_disk: bool) -> tuple[Disk, ...]:
    """Return the disks of an image that an export writes."""
    return tuple(disk for disk in image.disks if disk.usage == "SYSTEM_DISK" or not only_root_disk)


def object_key(object_prefix: str, image_id: str, disk: Disk, image_format: ImageFormat) -> str:
    """Return the key of a disk's object (source: the vendor's page on exporting images)."""
    kind = "system" if disk.usage == "SYSTEM_DISK" else "data"
    name = f"{image_id}_{kind}_{disk.snapshot_id}.{image_format.lower()}"
    return f"{object_prefix}_{name}" if object_prefix else name
