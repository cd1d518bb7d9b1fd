"""Export tasks from acceptance to end. All times are on the server's clock."""

import heapq
import itertools
import math
import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from urllib.parse import quote

from orchestrator.simulator.buckets import Buckets, StoredObject, Upload, make_object
from orchestrator.simulator.images import Disk, Image
from orchestrator.simulator.settings import BucketSettings, Duration, Settings

_GIB = 1 << 30
_SIZES = {"empty": 0, "tiny": 1 << 10}

Files = tuple[tuple[str, Disk], ...]
"""The disks of one image, each with the key of its object or of a part of it."""


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
        """Return the documented object keys and the disks of one image."""
        image, prefix = self.images[number], self.prefixes[number]
        disks = image.disks[:1] if self.only_root_disk else image.disks
        return tuple((self._key(image, prefix, disk), disk) for disk in disks)

    def written_files(self, number: int, names: str) -> Files:
        """Return the keys that one image's export really writes, with their disks.

        Args:
            names: a value of `Settings.object_names`.
        """
        files, prefix = self.files(number), self.prefixes[number]
        match names:
            case "uppercase":
                return tuple((_uppercase(key, prefix), disk) for key, disk in files)
            case "gz":
                return tuple((f"{key}.gz", disk) for key, disk in files)
            case "split":
                return tuple(
                    (f"{key}.{part}", replace(disk, size_gib=gib))
                    for key, disk in files
                    for part, gib in enumerate((disk.size_gib // 2, -(-disk.size_gib // 2)))
                )
            case "other-snapshots":
                return tuple(
                    (key.replace(disk.snapshot_id, disk.other_snapshot_id), disk)
                    for key, disk in files
                )
            case "one-file":
                words = (prefix, self.images[number].image_id)
                key = "_".join(filter(None, words)) + f".{self.format.lower()}"
                whole = sum(disk.size_gib for _, disk in files)
                return ((key, replace(files[0][1], size_gib=whole)),)
        return files

    def cos_paths(self, form: str) -> tuple[str, ...]:
        """Return CosPaths of the documented keys in a form of `Settings.cos_paths`."""
        if form == "empty":
            return ()
        return tuple(
            self._cos_path(key, self.prefixes[number], form)
            for number in range(len(self.images))
            for key, disk in self.written_files(number, form)
            if form != "system-only" or disk.usage == "SYSTEM_DISK"
        )

    def _cos_path(self, key: str, prefix: str, form: str) -> str:
        match form:
            case "url":
                return f"https://{self.bucket}.cos.{self.region}.myqcloud.com/{quote(key)}"
            case "encoded":
                # quote() would leave "_", "-" and "." as they are
                return "/" + "".join(
                    chr(one) if chr(one).isalnum() and one < 128 else f"%{one:02X}"
                    for one in key.encode()
                )
            case "no-slash":
                return key
            case "bucket-first":
                return f"/{self.bucket}/{key}"
            case "uppercase":
                return f"/{_uppercase(key, prefix)}"
        return f"/{key}"

    def _key(self, image: Image, prefix: str, disk: Disk) -> str:
        usage = "system" if disk.usage == "SYSTEM_DISK" else "data"
        words = (prefix, image.image_id, usage, disk.snapshot_id)
        return "_".join(word for word in words if word) + f".{self.format.lower()}"


@dataclass(frozen=True, slots=True)
class Export:
    """The export of one image of a task.

    Args:
        starts_at: time at which its uploads begin.
        ends_at: time at which all its objects are written; infinite if it never ends.
        bucket_region: region in which its bucket is.
        uploads: its multipart uploads; each ends when its object is written.
        objects: the objects that it writes.
        delivery: kind of `Delivery` fault; ``None`` is a good export.
        duplicate: an earlier export used one of its object keys.
    """

    task_id: int
    image_id: str
    account: str
    region: str
    bucket: str
    bucket_region: str
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
        self._running: dict[int, Export] = {}
        self._growing: dict[int, Export] = {}
        self._due: list[tuple[float, int, int]] = []
        """When an object is written, or an export ends: time, export, and object or their count."""
        self._busy: Counter[tuple[str, str]] = Counter()
        self._tasks: dict[tuple[str, str], Counter[int]] = defaultdict(Counter)
        self._task_ids = itertools.count(100_000_000 + random.Random(seed).randrange(10**8))
        self._export_counts: Counter[str] = Counter()
        self._keys: set[tuple[str, str]] = set()

    def begin(
        self, order: Order, now: float, settings: Settings, deliveries: Sequence[str | None]
    ) -> int:
        """Accept an order; return its TaskId.

        Args:
            deliveries: the kind of `Delivery` fault of each image; ``None`` is a good export.
        """
        task_id = next(self._task_ids)
        for number, delivery in enumerate(deliveries):
            export = self._export(task_id, order, number, now, settings, delivery)
            times = (*(stored.written_at for stored in export.objects), export.ends_at)
            for place, time in enumerate(times):
                heapq.heappush(self._due, (time, len(self.all), place))
            self._running[len(self.all)] = export
            if settings.growing_objects:
                self._growing[len(self.all)] = export
            self.all.append(export)
            self._busy[export.image_id, export.region] += 1
            self._tasks[export.account, export.region][task_id] += 1
        return task_id

    def advance(self, now: float) -> None:
        """End the exports whose time is over, and write the objects that are due."""
        while self._due and self._due[0][0] <= now:
            _, number, place = heapq.heappop(self._due)
            export = self.all[number]
            if place < len(export.objects):
                self._buckets.put(export.bucket, export.bucket_region, export.objects[place])
                continue
            del self._running[number]
            self._growing.pop(number, None)
            self._busy[export.image_id, export.region] -= 1
            self._count_end(export)
        for export in self._growing.values():
            self._grow(export, now)

    def running(self) -> Mapping[tuple[str, str], int]:
        """Return the number of running tasks by account and region."""
        return {scope: len(tasks) for scope, tasks in self._tasks.items() if tasks}

    def tasks(self, account: str, region: str) -> int:
        """Return the number of running tasks of an account in a region."""
        return len(self._tasks[account, region])

    def busy(self, image_id: str, region: str) -> bool:
        """Return whether an export of the image is running."""
        return self._busy[image_id, region] > 0

    def uploads(self, bucket: str, region: str, now: float) -> list[Upload]:
        """Return the multipart uploads in progress in a bucket, by key."""
        location = bucket, region
        here = (e for e in self._running.values() if (e.bucket, e.bucket_region) == location)
        return sorted(
            upload
            for export in here
            for upload in export.uploads
            if upload.started_at <= now < upload.ends_at
        )

    def _grow(self, export: Export, now: float) -> None:
        """Write the part of each object that is uploaded by now."""
        begins = {upload.key: upload.started_at for upload in export.uploads}
        for stored in export.objects:
            begin = begins[stored.key]
            if begin <= now < stored.written_at:
                size = int(stored.size * (now - begin) / (stored.written_at - begin))
                part = make_object(stored.key, max(1, size), now, str(export.task_id))
                self._buckets.put(export.bucket, export.bucket_region, part)

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
        image, files = order.images[number], order.written_files(number, settings.object_names)
        self._export_counts[image.image_id] += 1
        salt = f"{self._seed}/{image.image_id}/{self._export_counts[image.image_id]}"
        chance = random.Random(salt)
        starts_at = now + settings.queue_delay
        seconds = _seconds(settings.duration, sum(disk.size_gib for _, disk in files), chance)
        system_ends_at = math.inf if delivery == "stuck" else starts_at + seconds
        uploads = tuple(
            Upload(
                key,
                f"{chance.getrandbits(160):040x}",
                system_ends_at if late else starts_at,
                system_ends_at + late,
            )
            for key, disk in files
            for late in [settings.data_disks_after if disk.usage == "DATA_DISK" else 0.0]
        )
        sizes = {
            key: _size(order.format, disk, chance, delivery or settings.object_sizes)
            for key, disk in _delivered(files, delivery)
        }
        return Export(
            task_id=task_id,
            image_id=image.image_id,
            account=order.account,
            region=order.region,
            bucket=order.bucket,
            bucket_region=settings.buckets.get(order.bucket, BucketSettings()).redirect
            or order.region,
            accepted_at=now,
            starts_at=starts_at,
            ends_at=max(upload.ends_at for upload in uploads),
            uploads=uploads,
            objects=tuple(
                make_object(upload.key, sizes[upload.key], upload.ends_at, salt)
                for upload in uploads
                if upload.key in sizes
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


def _uppercase(key: str, prefix: str) -> str:
    """Return a key with capital letters after its prefix."""
    return prefix + key[len(prefix) :].upper()


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


def _size(image_format: str, disk: Disk, chance: random.Random, kind: str) -> int:
    """Return the size of a disk's object in bytes.

    A RAW object holds the whole disk, other formats hold its used part.

    Args:
        kind: of the `Delivery` fault, or else `Settings.object_sizes`.
    """
    if kind in _SIZES:
        return _SIZES[kind]
    whole = disk.size_gib * _GIB
    return whole if image_format == "RAW" else int(whole * chance.uniform(0.1, 0.6))
