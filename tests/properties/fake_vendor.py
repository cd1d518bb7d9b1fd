"""The vendor as the properties need it: what it was asked for, and what a look can see of that."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import count

import anyio
from hypothesis.vendor.pretty import RepresentationPrinter

from orchestrator.clock import SystemClock
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
    """Is told by its own short name where a failing history is printed."""

    def _repr_pretty_(self, printer: RepresentationPrinter, _cycle: bool) -> None:
        printer.text(repr(self))


@dataclass(eq=False)
class Export(ShortRepr):
    """One export that the vendor has begun.

    Args:
        seen_from: when its uploads can be seen; before that it leaves no trace.
        written: objects that are whole, by key.
        given_up: it has ended without ever writing the rest.
    """

    job_id: int
    task_id: int
    order: ExportOrder
    seen_from: datetime
    keys: tuple[str, ...]
    written: dict[str, ObjectFacts] = field(default_factory=dict)
    given_up: bool = False

    def __repr__(self) -> str:
        return f"<task {self.task_id - _FIRST_TASK} of job {self.job_id}>"

    @property
    def cos_paths(self) -> tuple[str, ...]:
        """As the vendor's answer writes them."""
        return tuple(f"/{key}" for key in self.keys)

    @property
    def has_ended(self) -> bool:
        """Whether nothing more comes of it."""
        return self.given_up or len(self.written) == len(self.keys)


class FakeVendor:
    """Takes requests, writes objects, and knows what really happened.

    Args:
        now: tells the time.
    """

    def __init__(self, now: Callable[[], datetime]) -> None:
        self.now = now
        self.exports: list[Export] = []
        self._numbers = count(1)

    def take(self, lease: Lease, *, unseen_for: timedelta) -> Outcome:
        """Begins an export, unless the signature has run out.

        Args:
            unseen_for: how long it leaves no trace.
        """
        now = self.now()
        if now - lease.signed_at > SIGNATURE_LASTS:
            return refuse(EXPIRED)
        export = Export(
            job_id=lease.job_id,
            task_id=_FIRST_TASK + next(self._numbers),
            order=lease.order,
            seen_from=now + unseen_for,
            keys=make_object_keys(
                lease.order.name_prefix, lease.order.image_ids, lease.order.format
            ),
        )
        self.exports.append(export)
        return accept(export)

    def write(self, export: Export) -> None:
        """Ends the next upload of an export: its object is there."""
        key = export.keys[len(export.written)]
        etag = f"etag-{next(self._numbers)}"
        export.written[key] = ObjectFacts(key, 50 << 30, etag, last_modified=self.now())

    def of(self, job_id: int) -> list[Export]:
        """The exports of a job, in the order in which they began."""
        return [export for export in self.exports if export.job_id == job_id]

    def uploads(self) -> Iterator[str]:
        """The keys that are being written."""
        for export in self.exports:
            if not export.given_up and export.seen_from <= self.now():
                yield from (key for key in export.keys if key not in export.written)

    def objects(self) -> dict[str, ObjectFacts]:
        """What lies in the bucket; who wrote last has overwritten what was there."""
        return {key: facts for export in self.exports for key, facts in export.written.items()}


class PausePoint:
    """A point at which a process sleeps for as long as it is told to."""

    def __init__(self) -> None:
        self.reached = anyio.Event()
        self.over = anyio.Event()

    async def sleep(self) -> None:
        """Sleeps here until told otherwise."""
        self.reached.set()
        await self.over.wait()


class FakeCosClient(CosClient):
    """The reads of a client of COS, answered by the vendor itself.

    Args:
        denied: the account may not look into the bucket.
        hold: where the next process sleeps that has listed objects.
    """

    def __init__(self, vendor: FakeVendor) -> None:
        self.denied = False
        self.hold: PausePoint | None = None
        self.clock = ServerClock(SystemClock())
        self._vendor = vendor

    async def head_object(self, region: str, bucket: str, key: str) -> ObjectFacts | None:
        """One object, if it is there."""
        self._see(region, bucket)
        return self._vendor.objects().get(key)

    async def list_objects(self, region: str, bucket: str, prefix: str) -> tuple[ObjectFacts, ...]:
        """The objects under a prefix, as they were before any sleep."""
        self._see(region, bucket)
        found = self._vendor.objects()
        hold, self.hold = self.hold, None
        if hold is not None:
            await hold.sleep()
        return tuple(facts for key, facts in found.items() if key.startswith(prefix))

    async def list_uploads(self, region: str, bucket: str, prefix: str) -> tuple[UploadFacts, ...]:
        """The uploads under a prefix."""
        self._see(region, bucket)
        keys = [key for key in self._vendor.uploads() if key.startswith(prefix)]
        return tuple(UploadFacts(key, f"upload-{key}") for key in keys)

    def _see(self, region: str, bucket: str) -> None:
        assert (region, bucket) == (REGION, BUCKET)
        if self.denied:
            raise CloudRefusal("AccessDenied", "no", http_status=403)


def make_object_keys(prefix: str, image_ids: Iterable[str], image_format: str) -> tuple[str, ...]:
    """The objects that an export writes: two disks for each image."""
    disks = ("system_snap-1", "data_snap-2")
    end = image_format.lower()
    return tuple(f"{prefix}_{image}_{disk}.{end}" for image in image_ids for disk in disks)


def accept(export: Export) -> Outcome:
    """The answer that names a task."""
    reply = Reply(200, "request", export.task_id, export.cos_paths)
    return Outcome(
        code_for_reply(reply),
        request_id=reply.request_id,
        http_status=200,
        task_id=reply.task_id,
        cos_paths=reply.cos_paths,
    )


def refuse(code: str) -> Outcome:
    """The answer that names a code."""
    return Outcome(code_for(code), "no", request_id="request", http_status=200)
