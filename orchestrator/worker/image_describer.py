"""Describe the images of waiting jobs: their disks and sizes, and so the object keys to expect.

A description is useful: the largest images are sent first, and every expected key is known. It is
not required: if DescribeImages gives none for a while, whatever the reason, jobs are sent without
it. Nor does what DescribeImages is refused for stop exports: they find out themselves.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

import anyio
import httpx
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.cloud.cvm import MAX_IMAGES
from orchestrator.cloud.error_classification import code_for_exception
from orchestrator.cloud.error_codes import MAY_CONCERN_ONE_IMAGE, code_for
from orchestrator.errors import CloudRefusal
from orchestrator.job_states import JobState
from orchestrator.limits.admission import DESCRIBE
from orchestrator.model import HALTING, Disk, ImageFacts, ImageFormat, Outcome, Reaction, Scope
from orchestrator.object_keys import object_key
from orchestrator.store import BusyRetry, upsert
from orchestrator.store.tables import CLAIMABLE, UNDESCRIBED, job_images, jobs, objects
from orchestrator.wakeup import Wakeup
from orchestrator.worker.run_context import RunContext

_IDLE = 0.5
"""Seconds between two checks for jobs to describe."""

_MAX_PAUSE = 5.0
"""Maximum seconds after failed calls. The pause doubles with each failure, because failures of this
call alone must not open the circuit breaker, which would hold up exports too."""

_WARNING = "DescribeImages"
"""Key of the warning that images are not described."""

_PASSING = frozenset({"Http500", "Http502", "Http503", "Http504"})
"""What a gateway answers during a short outage, which nobody needs to act on."""

_NO_DATE = "Date of CVM"
"""Key of the warning that answers have no time."""

_GIVE_UP_AFTER = 30.0
"""Seconds of failed calls after which the waiting jobs are sent without a description."""


class ImageDescriber:
    """Describe the waiting jobs of one endpoint, up to 100 images a call, in sending order.

    An image that DescribeImages does not know is left to ExportImages, whose refusal names the
    reason. An account without permission to describe images sends without sizes and expected keys.

    Args:
        regions: returns the regions of the endpoint.
        sendable: the jobs that may be sent at all, as a condition on the table of jobs.
        in_flight: limits the requests in flight, exports included.
    """

    def __init__(
        self,
        context: RunContext,
        *,
        regions: Callable[[], Sequence[str]],
        sendable: sa.ColumnElement[bool],
        in_flight: anyio.Semaphore,
        busy_retry: BusyRetry,
        wakeup: Wakeup,
    ) -> None:
        self._database = context.database
        self._cvm = context.cvm
        self._admission = context.admission
        self._profile = context.settings.profile
        self._regions = regions
        self._sendable = sendable
        self._in_flight = in_flight
        self._busy_retry = busy_retry
        self._wakeup = wakeup
        self._warnings = context.warnings
        self._has_answered = False
        self._is_forbidden = False
        self._failures = 0
        self._failing_since: float | None = None
        self._last_failure: Outcome | None = None

    async def run(self) -> None:
        """Describe jobs until cancelled."""
        while True:
            has_changed = await self._busy_retry.retry(self._describe_next)
            if self._cvm.clock.is_known:
                await self._warnings.clear(_NO_DATE)
            else:
                has_changed = await self._busy_retry.retry(self._learn_time) or has_changed
            if has_changed:
                self._wakeup.notify()
            elif self._is_forbidden and not self._cvm.clock.is_known:
                await anyio.sleep(_MAX_PAUSE)
            else:
                await anyio.sleep(min(_IDLE * 2 ** min(self._failures, 10), _MAX_PAUSE))

    async def _describe_next(self) -> bool:
        """Describe the next jobs of each region; return whether any job may be sent now."""
        has_changed = False
        for region in self._regions():
            query = self._waiting(UNDESCRIBED, [region])
            query = query.order_by(jobs.c.priority.desc(), jobs.c.id).limit(MAX_IMAGES)
            async with self._database.read() as connection:
                waiting = (await connection.execute(query)).all()
            if not waiting:
                continue
            images = list(dict.fromkeys(image for row in waiting for image in row.image_ids))
            facts = await self._describe(region, images)
            if facts is None:
                waiting = waiting[: await self._count_undescribed(region)]
            if waiting:
                async with self._database.write() as connection:
                    now = await self._database.now(connection)
                    await _save(connection, waiting, facts or {}, now)
            # after a single job its answer is waited for
            has_changed = has_changed or facts is not None or len(waiting) > 1
        return has_changed

    async def _count_undescribed(self, region: str) -> int:
        """Return how many of the waiting jobs are sent although DescribeImages failed.

        Before the server's time is known no job can be sent. A refusal such as a wrong key would
        stop exports as well. One job at a time finds out.
        """
        failure, halts = self._last_failure, self._admission.halts
        host, is_known = self._cvm.host(region), self._cvm.clock.is_known
        if failure is None or not is_known or halts.blocks_endpoint(host):
            return 0
        is_refused = self._failures > 1 and failure.code.reaction in HALTING
        if is_refused and not halts.was_accepted(Scope.REGION, region):
            return 1
        if not (is_refused or self._has_failed_long()):
            return 0
        await self._warn(f"DescribeImages has failed ({failure.code.name}: {failure.message}).")
        return MAX_IMAGES

    def _has_failed_long(self) -> bool:
        since = self._failing_since
        return since is not None and anyio.current_time() - since >= _GIVE_UP_AFTER

    async def _learn_time(self) -> bool:
        """Ask only for the server's time; return whether it is known now.

        Claims are dated with this time. Any image is asked about. If that is forbidden, or after a
        while without an answer, another action is called, because DescribeImages alone may fail;
        but where a gateway answers both, nothing may be sent.
        """
        clock = self._cvm.clock
        if self._is_forbidden or self._has_failed_long():
            await self._ask_time(self._regions()[0])
            return clock.is_known
        async with self._database.read() as connection:
            query = self._waiting(CLAIMABLE, self._regions()).limit(1)
            row = (await connection.execute(query)).first()
        if row is None:
            return False
        facts = await self._describe(row.region, row.image_ids[:MAX_IMAGES])
        if facts is not None and not clock.is_known:
            await self._warn_of_missing_date(self._cvm.host(row.region))
        return clock.is_known

    async def _ask_time(self, region: str) -> None:
        """Ask for the server's time without DescribeImages; warn if it stays unknown."""
        host, failure = self._cvm.host(region), self._last_failure
        credential = await self._admission.credential()
        if credential is None or self._admission.halts.blocks_endpoint(host):
            return
        with suppress(httpx.HTTPError):
            async with self._in_flight:
                await self._cvm.ask_time(region, credential=credential)
        if failure is None:  # DescribeImages is forbidden, of which there is a warning
            if not self._cvm.clock.is_known:
                await self._warn_of_missing_date(host)
            return
        if self._cvm.clock.is_known:
            await self._warnings.clear(_WARNING)
            return
        await self._warn_of_silence(host, failure)

    async def _warn_of_page(self, host: str) -> None:
        """Warn if only pages have answered; a single one may be that of a short outage."""
        failure = self._last_failure
        if failure is None or self._failures < 2 or self._cvm.clock.is_known:
            return
        if failure.code.name.startswith("Http") and failure.code.name not in _PASSING:
            await self._warn_of_silence(host, failure)

    async def _warn_of_silence(self, host: str, failure: Outcome) -> None:
        what = f"{failure.code.name}: {' '.join(failure.message.split())}"
        await self._warnings.warn(
            _WARNING,
            f"{host} has not answered as the API yet ({what}); nothing is sent until it answers. "
            "It is assumed that a proxy, gateway or login page answers in its place: check for "
            "one, and log in to a login page with a browser.",
        )

    async def _warn_of_missing_date(self, host: str) -> None:
        await self._warnings.warn(
            _NO_DATE,
            f"{host} sends no Date header. Without the server's time a signature may live longer "
            "than this program believes, so nothing is sent. Check for a proxy that removes the "
            "header.",
        )

    def _waiting(self, condition: str, regions: Sequence[str]) -> sa.Select[Any]:
        """Return the query for sendable jobs that meet a partial index's condition."""
        return sa.select(jobs).where(
            sa.text(condition),
            jobs.c.profile == self._profile,
            jobs.c.region.in_(regions),
            self._sendable,
        )

    async def _describe(self, region: str, images: Sequence[str]) -> dict[str, ImageFacts] | None:
        """Return the facts about these images; ``None`` if the call must be repeated."""
        facts: dict[str, ImageFacts] = {}
        parts = [images[start : start + MAX_IMAGES] for start in range(0, len(images), MAX_IMAGES)]
        while parts and not self._is_forbidden:
            part = parts.pop(0)
            answer = await self._call(region, part)
            if answer is None:
                await self._warn_of_page(self._cvm.host(region))
                return None
            if isinstance(answer, CloudRefusal):
                parts += _parts_without_unknown(part, answer)
                if "InvalidImageId" not in answer.code:
                    await self._warn(
                        f"DescribeImages is refused ({answer}). {code_for(answer.code).remedy}"
                    )
            else:
                facts |= {image.image_id: image for image in answer}
        return facts

    async def _call(
        self, region: str, images: Sequence[str]
    ) -> tuple[ImageFacts, ...] | CloudRefusal | None:
        """Call DescribeImages once.

        Returns:
            The answer; a refusal that one of the images causes; ``None`` if the call must be
            repeated.
        """
        host = self._cvm.host(region)
        credential = await self._admission.credential()
        if credential is None or self._admission.halts.blocks_endpoint(host):
            return None
        rate_limiter = await self._admission.wait_for_turn(DESCRIBE, host)
        permit = await rate_limiter.acquire()
        await permit.wait()
        asked_at = anyio.current_time()
        try:
            async with self._in_flight:
                found = await self._cvm.describe_images(region, images, credential=credential)
        except CloudRefusal as refusal:
            code = code_for(refusal.code)
            if not refusal.code.startswith("Http"):
                await self._admission.record_response(host)
            is_denied = code.name in MAY_CONCERN_ONE_IMAGE
            self._is_forbidden = is_denied and not self._has_answered  # else it may pass
            if self._is_forbidden or code.reaction is Reaction.FAIL:
                return refusal
            outcome = Outcome(code, refusal.service_message, http_status=refusal.http_status)
        except httpx.HTTPError as error:
            outcome = Outcome(code_for_exception(error), str(error) or type(error).__name__)
        else:
            await self._admission.record_response(host)
            self._failures, self._failing_since, self._last_failure = 0, None, None
            self._has_answered = True
            if found:
                await self._warnings.clear(_WARNING)
            else:
                await self._warn("DescribeImages shows none of the images that it was asked for.")
            return found
        self._failures += 1
        self._last_failure = outcome
        # if the endpoint cannot be reached, exports cannot be sent either, so nothing is gained
        if self._failing_since is None and outcome.code.reaction is not Reaction.PAUSE:
            self._failing_since = asked_at
        if outcome.code.reaction is Reaction.SLOW:
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
        await self._admission.update_warnings(DESCRIBE, host, region, outcome)
        return None

    async def _warn(self, cause: str) -> None:
        await self._warnings.warn(
            _WARNING, f"{cause} Jobs are sent without sizes and expected object keys."
        )


def _parts_without_unknown(images: Sequence[str], refusal: CloudRefusal) -> list[Sequence[str]]:
    """Return what to ask instead, where one unknown image made a call fail.

    These are the other images if the refusal names the unknown one, else two halves.
    """
    if "InvalidImageId" not in refusal.code:
        return []
    rest = [image for image in images if image not in refusal.message]
    middle = len(images) // 2
    parts = [rest] if len(rest) < len(images) else [images[:middle], images[middle:]]
    return [part for part in parts if part and len(part) < len(images)]


async def _save(
    connection: AsyncConnection,
    waiting: Sequence[Any],
    facts: dict[str, ImageFacts],
    now: datetime,
) -> None:
    """Save what is known, in few statements: claims wait for this transaction to end."""
    query = (
        sa.select(jobs.c.id)
        .where(
            jobs.c.id.in_([row.id for row in waiting]),
            jobs.c.described_at.is_(None),
            jobs.c.state == JobState.QUEUED,  # a late answer may have accepted it
        )
        .with_for_update()
    )
    # another process may have described some of them meanwhile
    fresh = set((await connection.execute(query)).scalars())
    rows = [row for row in waiting if row.id in fresh]
    disks_of = {
        row.id: [
            (image_id, disk)
            for image_id in row.image_ids
            if image_id in facts
            for disk in exported_disks(facts[image_id], only_root_disk=row.only_root_disk)
        ]
        for row in rows
    }
    described = [
        {"this": job_id, "size": sum(disk.size_gib for _, disk in disks)}
        for job_id, disks in disks_of.items()
    ]
    expected = [one for row in rows for one in _expected(row, disks_of[row.id])]
    states = [
        {"this": row.id, "image": image_id, "said": facts[image_id].state}
        for row in rows
        for image_id in row.image_ids
        if image_id in facts
    ]
    for statement, values in (
        (_DESCRIBED.values(described_at=now), described),
        # an answer to an earlier attempt may have named a key
        (upsert(connection, objects, "expected", "disk_gib"), expected),
        (_IMAGE_STATE, states),
    ):
        if values:
            await connection.execute(statement, values)


_DESCRIBED = (
    jobs.update().where(jobs.c.id == sa.bindparam("this")).values(size_gib=sa.bindparam("size"))
)
_IMAGE_STATE = (
    job_images.update()
    .where(job_images.c.job_id == sa.bindparam("this"))
    .where(job_images.c.image_id == sa.bindparam("image"))
    .values(state=sa.bindparam("said"))
)


def _expected(row: Any, disks: Sequence[tuple[str, Disk]]) -> Iterator[dict[str, Any]]:
    """Yield the objects that an export will write, if all their keys are known.

    A job with some of its keys would count as complete before all of its objects are there.
    """
    systems = {image_id for image_id, disk in disks if disk.usage == "SYSTEM_DISK"}
    has_key = all(disk.snapshot_id and disk.usage in _USAGES for _, disk in disks)
    if not has_key or systems != set(row.image_ids):
        return
    for image_id, disk in disks:
        key = object_key(row.object_prefix, image_id, disk, ImageFormat(row.format))
        size = disk.size_gib or None
        yield {"job_id": row.id, "key": key, "expected": True, "disk_gib": size}


_USAGES = frozenset({"SYSTEM_DISK", "DATA_DISK"})


def exported_disks(image: ImageFacts, *, only_root_disk: bool) -> tuple[Disk, ...]:
    """Return the disks of an image that an export writes."""
    return tuple(disk for disk in image.disks if disk.usage == "SYSTEM_DISK" or not only_root_disk)
