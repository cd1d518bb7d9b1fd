"""Asks what the images are before they are sent: disks, sizes, and so the keys to expect."""

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Any

import anyio
import httpx
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.cloud.credentials.base import Credential
from orchestrator.cloud.cvm import MAX_IMAGES, CvmClient
from orchestrator.cloud.error_classification import code_for_exception
from orchestrator.cloud.error_codes import code_for
from orchestrator.errors import CloudRefusal
from orchestrator.limits.admission import DESCRIBE, Admission
from orchestrator.limits.backoff import backoff
from orchestrator.limits.concurrency_limit import has_job
from orchestrator.model import Disk, ImageFacts, ImageFormat, Outcome, Reaction, Scope
from orchestrator.store import BusyRetry, Database
from orchestrator.store.tables import CLAIMABLE, UNDESCRIBED, job_images, jobs, objects, scopes
from orchestrator.wakeup import Wakeup

_IDLE = 0.5
_LONGEST_IDLE = 5.0
_TRIES = 3
_LAST_TRY = 20
"""Tries, minutes in all, after which jobs go without: it may be their images that upset it."""

_NOT_ALLOWED = frozenset({"AuthFailure.UnauthorizedOperation", "UnauthorizedOperation"})


class ImageDescriber:
    """Describes waiting jobs, a call's worth at a time, in the order in which they will be sent.

    An image that DescribeImages does not know is left to ExportImages to refuse, which names the
    reason. An account that may not describe goes without sizes and expected keys.

    Args:
        profile: the account.
        regions: those of one endpoint, each in its turn.
        permitted: tells which jobs may be sent at all, as a condition on the table of jobs.
        in_air: bounds what is in the air at once, exports included.
        tell: takes sentences for the user.
    """

    def __init__(
        self,
        database: Database,
        cvm: CvmClient,
        admission: Admission,
        profile: str,
        *,
        regions: list[str],
        permitted: Callable[[], sa.ColumnElement[bool]],
        in_flight: anyio.Semaphore,
        busy_retry: BusyRetry,
        wakeup: Wakeup,
        notify: Callable[[str], None],
    ) -> None:
        self._database = database
        self._cvm = cvm
        self._admission = admission
        self._profile = profile
        self._regions = regions
        self._last = ""
        """The region that had its turn last."""
        self._permitted = permitted
        self._in_flight = in_flight
        self._busy_retry = busy_retry
        self._wakeup = wakeup
        self._notify = notify
        self._forbidden = False
        self._misses = 0
        self._answered = False
        """Whether it was the API, and nothing before it, that answered the last question."""
        self._is_told_of_clock = False

    async def run(self) -> None:
        """Describes until cancelled."""
        while True:
            has_news = await self._busy_retry.retry(self._describe_next)
            if not self._cvm.clock.is_known:
                has_news = await self._busy_retry.retry(self._ask_for_time) or has_news
            if has_news:
                self._misses = 0
                self._wakeup.notify()
            else:
                pause = backoff(self._misses, 1.0, first=_IDLE, longest=_LONGEST_IDLE)
                await anyio.sleep(pause.total_seconds())

    async def _describe_next(self) -> bool:
        """Describes the next jobs, or lets them go without where it is hopeless; true when done."""
        waiting = await self._next_waiting()
        if not waiting:
            return False
        region = waiting[0].region
        images = list(dict.fromkeys(image for row in waiting for image in row.image_ids))
        facts = await self._facts(region, images)
        if facts is None:
            return False
        async with self._database.write() as connection:
            await _keep(connection, waiting, facts, await self._database.now(connection))
        return True

    async def _ask_for_time(self) -> bool:
        """Ask about any job, only to learn the server's time: no claim is signed without it."""
        async with self._database.read() as connection:
            query = (
                sa.select(jobs.c.region, jobs.c.image_ids)
                .where(
                    sa.text(CLAIMABLE),
                    jobs.c.profile == self._profile,
                    jobs.c.region.in_(self._regions),
                    self._permitted(),
                )
                .limit(1)
            )
            row = (await connection.execute(query)).first()
        if row is None:
            return False
        await self._ask(row.region, row.image_ids[:MAX_IMAGES])
        if self._answered and not self._cvm.clock.is_known and not self._is_told_of_clock:
            self._is_told_of_clock = True
            self._notify(
                f"{self._cvm.host(row.region)} sends no Date header. Without the server's time a "
                "signature may live longer than this program believes, so nothing is sent."
            )
        return self._cvm.clock.is_known

    async def _next_waiting(self) -> list[Any]:
        """The next jobs of the region whose turn it is, or of the first after it that has any."""
        async with self._database.read() as connection:
            found = await _undescribed(connection, self._profile, self._regions)
            later = [region for region in found if region > self._last]
            for region in later + [region for region in found if region <= self._last]:
                permitted = self._permitted()
                if waiting := await _waiting(connection, self._profile, region, permitted):
                    self._last = region
                    return waiting
        return []

    async def _facts(self, region: str, images: Sequence[str]) -> dict[str, ImageFacts] | None:
        """What is known of all these images; ``None`` when they must be asked for again.

        What fails again and again is asked for image by image, once any single one is answered.
        """
        at_once = MAX_IMAGES
        if self._misses >= _TRIES and not self._forbidden:
            single = images[self._misses % len(images)]  # each time another: it may be this one
            if await self._ask(region, [single]) is None:
                return {} if self._answered or self._misses >= _LAST_TRY else None
            at_once = 1
        facts: dict[str, ImageFacts] = {}
        for start in range(0, len(images), at_once):
            if self._forbidden:
                break
            found = await self._ask(region, images[start : start + at_once])
            if found is None and at_once > 1:
                return None
            facts |= found or {}
        return facts

    async def _ask(self, region: str, images: Sequence[str]) -> dict[str, ImageFacts] | None:
        """What is known of these images; ``None`` when the question must be put again."""
        self._answered = False
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
            return await self._refused(refusal, region, images, credential, asked_at)
        except httpx.HTTPError as error:
            outcome = Outcome(code_for_exception(error), str(error) or type(error).__name__)
            await self._learn(host, region, outcome, credential, asked_at)
            return None
        self._answered = True
        self._admission.record_response(host)
        return {image.image_id: image for image in found}

    async def _refused(
        self,
        refusal: CloudRefusal,
        region: str,
        images: Sequence[str],
        credential: Credential,
        asked_at: float,
    ) -> dict[str, ImageFacts] | None:
        self._answered = not refusal.code.startswith("Http")
        if self._answered:
            self._admission.record_response(self._cvm.host(region))
        code = code_for(refusal.code)
        if code.name in _NOT_ALLOWED:
            self._forbidden = True
            self._notify(
                "This account may not call DescribeImages: sizes and disks stay unknown. "
                "Grant cvm:DescribeImages to have the largest images sent first."
            )
            return {}
        if code.reaction is Reaction.FAIL:
            return await self._ask_without_unknown(refusal, region, images)
        outcome = Outcome(code, refusal.said, http_status=refusal.http_status)
        await self._learn(self._cvm.host(region), region, outcome, credential, asked_at)
        return None

    async def _ask_without_unknown(
        self, refusal: CloudRefusal, region: str, images: Sequence[str]
    ) -> dict[str, ImageFacts] | None:
        """One unknown image fails the whole call: ask without those named, or else by halves."""
        if len(images) == 1 or "InvalidImageId" not in refusal.code:
            return {}
        rest = [image for image in images if image not in refusal.message]
        middle = len(images) // 2
        parts = [images[:middle], images[middle:]] if len(rest) == len(images) else [rest]
        facts: dict[str, ImageFacts] = {}
        for part in filter(None, parts):
            found = await self._ask(region, part)
            if found is None:
                return None
            facts |= found
        return facts

    async def _learn(
        self, host: str, region: str, outcome: Outcome, credential: Credential, asked_at: float
    ) -> None:
        if outcome.code.reaction in {Reaction.RETRY, Reaction.RECONCILE}:
            self._misses += 1
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
    """Those of these regions in which a job waits to be described."""
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
    connection: AsyncConnection, profile: str, region: str, permitted: sa.ColumnElement[bool]
) -> list[Any]:
    """Up to a call's worth of jobs of one region, in the order in which they will be sent."""
    columns = (jobs.c[name] for name in _NEEDED)
    query = (
        sa.select(*columns)
        .where(sa.text(UNDESCRIBED), jobs.c.profile == profile, jobs.c.region == region, permitted)
        .order_by(jobs.c.priority.desc(), jobs.c.id)
        .limit(MAX_IMAGES)
    )
    return list((await connection.execute(query)).all())


_NEEDED = ("id", "region", "image_ids", "object_prefix", "format", "only_root_disk")


async def _keep(
    connection: AsyncConnection,
    waiting: Sequence[Any],
    facts: dict[str, ImageFacts],
    now: datetime,
) -> None:
    """Keeps what is known, in a few statements: the sender waits for this transaction's end."""
    fresh = await _still_waiting(connection, [row.id for row in waiting])
    described: list[dict[str, Any]] = []
    expected: list[dict[str, Any]] = []
    states: list[dict[str, Any]] = []
    for row in waiting:
        if row.id not in fresh:
            continue  # another process was quicker
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
    """The objects that a job's export will write, as far as its images are known."""
    for image in (facts[image_id] for image_id in row.image_ids if image_id in facts):
        for disk in exported_disks(image, only_root_disk=row.only_root_disk):
            key = object_key(row.object_prefix, image.image_id, disk, ImageFormat(row.format))
            yield {"job_id": row.id, "key": key, "expected": True, "disk_gib": disk.size_gib}


def exported_disks(image: ImageFacts, *, only_root_disk: bool) -> tuple[Disk, ...]:
    """The disks of an image that an export writes."""
    return tuple(disk for disk in image.disks if disk.usage == "SYSTEM_DISK" or not only_root_disk)


def object_key(object_prefix: str, image_id: str, disk: Disk, image_format: ImageFormat) -> str:
    """The key that the vendor will write a disk to (source: its page on exporting images)."""
    kind = "system" if disk.usage == "SYSTEM_DISK" else "data"
    name = f"{image_id}_{kind}_{disk.snapshot_id}.{image_format.lower()}"
    return f"{object_prefix}_{name}" if object_prefix else name
