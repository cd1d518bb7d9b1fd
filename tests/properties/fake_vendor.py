"""A fake vendor for the property tests: it accepts exports, and shows them to lookups."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import count

import anyio
from hypothesis.vendor.pretty import RepresentationPrinter

from orchestrator.cloud.clock_skew import ServerClock
from orchestrator.cloud.cos import CosClient
from orchestrator.cloud.error_classification import code_for_reply
from orchestrator.cloud.error_codes import code_for
from orchestrator.errors import CloudRefusal
from orchestrator.model import ExportOrder, Lease, ObjectFacts, Outcome, Reply, UploadFacts
from tests.job_factory import BUCKET, REGION

SIGNATURE_LASTS = timedelta(seconds=300)
EXPIRED = "AuthFailure.SignatureExpire"

_FIRST_TASK = 2**63


class ShortRepr:
    """Printed by its short repr in a failing history."""

    def _repr_pretty_(self, printer: RepresentationPrinter, _cycle: bool) -> None:
        printer.text(repr(self))


@dataclass(eq=False)
class Export(ShortRepr):
    """One export that the vendor has begun.

    Args:
        visible_from: when its uploads become visible; before that it leaves no trace.
        written: complete objects, by key.
        given_up: it has ended and will never write the rest.
    """

    job_id: int
    task_id: int
    order: ExportOrder
    visible_from: datetime
    keys: tuple[str, ...]
    written: dict[str, ObjectFacts] = field(default_factory=dict)
    given_up: bool = False

    def __repr__(self) -> str:
        return f"<task {self.task_id - _FIRST_TASK} of job {self.job_id}>"

    @property
    def cos_paths(self) -> tuple[str, ...]:
        """The keys in the form of the vendor's answer."""
        return tuple(f"/{key}" for key in self.keys)

    @property
    def has_ended(self) -> bool:
        """Whether it writes nothing more."""
        return self.given_up or len(self.written) == len(self.keys)


class FakeVendor:
    """Accepts requests, writes objects, and knows which exports really began.

    Args:
        now: returns the current time.
    """

    def __init__(self, now: Callable[[], datetime]) -> None:
        self.now = now
        self.exports: list[Export] = []
        self._numbers = count(1)

    def take(self, lease: Lease, *, invisible_for: timedelta) -> Outcome:
        """Begin an export, unless the signature has expired.

        Args:
            invisible_for: how long it leaves no trace.
        """
        now = self.now()
        if now - lease.signed_at > SIGNATURE_LASTS:
            return refuse(EXPIRED)
        export = Export(
            job_id=lease.job_id,
            task_id=_FIRST_TASK + next(self._numbers),
            order=lease.order,
            visible_from=now + invisible_for,
            keys=make_object_keys(
                lease.order.name_prefix, lease.order.image_ids, lease.order.format
            ),
        )
        self.exports.append(export)
        return accept(export)

    def write(self, export: Export) -> None:
        """Finish the next upload of an export: write its object."""
        key = export.keys[len(export.written)]
        etag = f"etag-{next(self._numbers)}"
        export.written[key] = ObjectFacts(key, 50 << 30, etag, last_modified=self.now())

    def of(self, job_id: int) -> list[Export]:
        """Return the exports of a job, in the order in which they began."""
        return [export for export in self.exports if export.job_id == job_id]

    def uploads(self) -> Iterator[str]:
        """Yield the keys of the uploads in progress."""
        for export in self.exports:
            if not export.given_up and export.visible_from <= self.now():
                yield from (key for key in export.keys if key not in export.written)

    def objects(self) -> dict[str, ObjectFacts]:
        """Return the objects in the bucket; a later export overwrites an earlier one."""
        return {key: facts for export in self.exports for key, facts in export.written.items()}


class PausePoint:
    """A point at which a process is paused until it is released."""

    def __init__(self) -> None:
        self.reached = anyio.Event()
        self.over = anyio.Event()

    async def sleep(self) -> None:
        """Pause here until released."""
        self.reached.set()
        await self.over.wait()


class FakeCosClient(CosClient):
    """The read operations of the COS client, answered by the fake vendor.

    Args:
        denied: whether the account has no permission to read the bucket.
        pause: where the next process that has listed objects is paused.
    """

    def __init__(self, vendor: FakeVendor) -> None:
        self.denied = False
        self.pause: PausePoint | None = None
        self.clock = ServerClock(vendor)
        self.clock.is_known = True
        self._vendor = vendor

    async def head_object(self, region: str, bucket: str, key: str) -> ObjectFacts | None:
        """Return one object, or None."""
        self._check_access(region, bucket)
        return self._vendor.objects().get(key)

    async def list_objects(self, region: str, bucket: str, prefix: str) -> tuple[ObjectFacts, ...]:
        """Return the objects under a prefix, as they were before a pause."""
        self._check_access(region, bucket)
        found = self._vendor.objects()
        pause, self.pause = self.pause, None
        if pause is not None:
            await pause.sleep()
        return tuple(facts for key, facts in found.items() if key.startswith(prefix))

    async def list_uploads(self, region: str, bucket: str, prefix: str) -> tuple[UploadFacts, ...]:
        """Return the uploads under a prefix."""
        self._check_access(region, bucket)
        keys = [key for key in self._vendor.uploads() if key.startswith(prefix)]
        return tuple(UploadFacts(key) for key in keys)

    def _check_access(self, region: str, bucket: str) -> None:
        assert (region, bucket) == (REGION, BUCKET)
        if self.denied:
            raise CloudRefusal("AccessDenied", "no", http_status=403)


def make_object_keys(prefix: str, image_ids: Iterable[str], image_format: str) -> tuple[str, ...]:
    """Return the keys of an export: two disks for each image."""
    disks = ("system_snap-1", "data_snap-2")
    end = image_format.lower()
    return tuple(f"{prefix}_{image}_{disk}.{end}" for image in image_ids for disk in disks)


def accept(export: Export) -> Outcome:
    """Return the outcome of an accepted request."""
    reply = Reply(200, "request", export.task_id, export.cos_paths)
    return Outcome(
        code_for_reply(reply),
        request_id=reply.request_id,
        http_status=200,
        task_id=reply.task_id,
        cos_paths=reply.cos_paths,
    )


def refuse(code: str) -> Outcome:
    """Return the outcome of a request refused with a code."""
    return Outcome(code_for(code), "no", request_id="request", http_status=200)
