"""Export tasks from acceptance to end. All times are on the server's clock."""

import heapq
import itertools
import math
import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestrator.simulator.buckets import Buckets, StoredObject, Upload, make_object
from orchestrator.simulator.images import Disk, Image
from orchestrator.simulator.settings import Duration, Settings

_GIB = 1 << 30

Files = tuple[tuple[str, Disk], ...]
"""The disks of one image, each with its object key."""


@dataclass(frozen=True, slots=True)
class Order:
    """An ExportImages request that has passed all checks; it has one prefix for each image."""

    account: str
    region: str
    bucket: str
    format: str
    only_root_disk: bool
    images: tuple[Image, ...]
    prefixes: tuple[str, ...]

    def files(self, number: int) -> Files:
        """Return the object keys and disks of one image."""
        image, prefix = self.images[number], self.prefixes[number]
        disks = image.disks[:1] if self.only_root_disk else image.disks
        return tuple((self._key(image, prefix, disk), disk) for disk in disks)

    def _key(self, image: Image, prefix: str, disk: Disk) -> str:
        usage = "system" if disk.usage == "SYSTEM_DISK" else "data"
        words = (prefix, image.image_id, usage, disk.snapshot_id)
        return "_".join(word for word in words if word) + f".{self.format.lower()}"


@dataclass(frozen=True, slots=True)
class Export:
    """The export of one image of a task.

    Args:
        starts_at: time at which its uploads begin.
        ends_at: time at which its objects are written; infinite if it never ends.
        uploads: its multipart uploads between these times.
        objects: the objects that it writes.
        delivery: kind of `Delivery` fault; ``None`` is a good export.
        duplicate: an earlier export used one of its object keys.
    """

    task_id: int
    image_id: str
    account: str
    region: str
    bucket: str
    accepted_at: float
    starts_at: float
    ends_at: float
    uploads: tuple[Upload, ...]
    objects: tuple[StoredObject, ...]
    delivery: str | None
    duplicate: bool

    def state(self, now: float) -> str:
        """Return ``queued``, ``uploading`` or ``ended``."""
        if now >= self.ends_at:
            return "ended"
        return "uploading" if now >= self.starts_at else "queued"


class Exports:
    """All exports since the start."""

    def __init__(self, seed: int, buckets: Buckets) -> None:
        self.all: list[Export] = []
        self._seed = seed
        self._buckets = buckets
        self._running: list[tuple[float, int]] = []
        self._busy: set[tuple[str, str]] = set()
        self._tasks: dict[tuple[str, str], Counter[int]] = defaultdict(Counter)
        self._task_ids = itertools.count(100_000_000 + random.Random(seed).randrange(10**8))
        self._export_counts: Counter[str] = Counter()
        self._keys: set[tuple[str, str]] = set()

    def begin(
        self, order: Order, now: float, settings: Settings, deliveries: Sequence[str | None]
    ) -> tuple[int, tuple[str, ...]]:
        """Accept an order; return its TaskId and object keys.

        Args:
            deliveries: the kind of `Delivery` fault of each image; ``None`` is a good export.
        """
        task_id = next(self._task_ids)
        for number, delivery in enumerate(deliveries):
            export = self._export(task_id, order, number, now, settings, delivery)
            heapq.heappush(self._running, (export.ends_at, len(self.all)))
            self.all.append(export)
            self._busy.add((export.image_id, export.region))
            self._tasks[export.account, export.region][task_id] += 1
        files = (order.files(number) for number in range(len(order.images)))
        return task_id, tuple(key for one in files for key, _ in one)

    def advance(self, now: float) -> None:
        """End the exports whose time is over, and write their objects."""
        while self._running and self._running[0][0] <= now:
            _, number = heapq.heappop(self._running)
            export = self.all[number]
            for stored in export.objects:
                self._buckets.put(export.bucket, export.region, stored)
            self._busy.discard((export.image_id, export.region))
            self._count_end(export)

    def running(self) -> Mapping[tuple[str, str], int]:
        """Return the number of running tasks by account and region."""
        return {scope: len(tasks) for scope, tasks in self._tasks.items() if tasks}

    def tasks(self, account: str, region: str) -> int:
        """Return the number of running tasks of an account in a region."""
        return len(self._tasks[account, region])

    def busy(self, image_id: str, region: str) -> bool:
        """Return whether an export of the image is running."""
        return (image_id, region) in self._busy

    def uploads(self, bucket: str, region: str, now: float) -> list[Upload]:
        """Return the multipart uploads in progress in a bucket, by key."""
        location = bucket, region
        exports = (self.all[number] for _, number in self._running)
        here = (e for e in exports if (e.bucket, e.region) == location and now >= e.starts_at)
        return sorted(upload for export in here for upload in export.uploads)

    def _count_end(self, export: Export) -> None:
        """Stop counting a task against the cap when all its exports have ended."""
        tasks = self._tasks[export.account, export.region]
        tasks[export.task_id] -= 1
        if not tasks[export.task_id]:
            del tasks[export.task_id]

    def _export(
        self,
        task_id: int,
        order: Order,
        number: int,
        now: float,
        settings: Settings,
        delivery: str | None,
    ) -> Export:
        image, files = order.images[number], order.files(number)
        self._export_counts[image.image_id] += 1
        salt = f"{self._seed}/{image.image_id}/{self._export_counts[image.image_id]}"
        chance = random.Random(salt)
        starts_at = now + settings.queue_delay
        seconds = _seconds(settings.duration, sum(disk.size_gib for _, disk in files), chance)
        ends_at = math.inf if delivery == "stuck" else starts_at + seconds
        return Export(
            task_id=task_id,
            image_id=image.image_id,
            account=order.account,
            region=order.region,
            bucket=order.bucket,
            accepted_at=now,
            starts_at=starts_at,
            ends_at=ends_at,
            uploads=tuple(
                Upload(k, f"{chance.getrandbits(160):040x}", starts_at) for k, _ in files
            ),
            objects=tuple(
                make_object(key, _size(order.format, disk, chance, delivery), ends_at, salt)
                for key, disk in _delivered(files, delivery)
            ),
            delivery=delivery,
            duplicate=self._remember(order.bucket, [key for key, _ in files]),
        )

    def _remember(self, bucket: str, keys: Sequence[str]) -> bool:
        """Record the keys of an export; return whether one of them was used before."""
        names = {(bucket, key) for key in keys}
        is_used = not names.isdisjoint(self._keys)
        self._keys |= names
        return is_used


def _seconds(duration: Duration, gib: int, chance: random.Random) -> float:
    """Return the duration of an export of this size."""
    share = 1.0
    if duration.kind == "uniform":
        share = chance.uniform(1 - duration.spread, 1 + duration.spread)
    elif duration.kind == "lognormal":
        share = chance.lognormvariate(0, duration.spread)
    return max(0.0, duration.seconds * share) + duration.per_gib * gib


def _delivered(files: Files, delivery: str | None) -> Files:
    """Return the files that the export really writes."""
    if delivery == "never":
        return ()
    return files[:-1] if delivery == "partial" else files


def _size(image_format: str, disk: Disk, chance: random.Random, delivery: str | None) -> int:
    """Return the bytes of a disk's object: RAW holds the whole disk, others the used part."""
    if delivery == "empty":
        return 0
    whole = disk.size_gib * _GIB
    return whole if image_format == "RAW" else int(whole * chance.uniform(0.1, 0.6))
