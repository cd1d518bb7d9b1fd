"""The objects and multipart uploads in the buckets."""

import hashlib
from bisect import bisect_left, insort
from collections import defaultdict
from dataclasses import dataclass

_PART_BYTES = 64 << 20
"""Part size of an upload. The number of parts is a suffix of a multipart object's ETag."""


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One complete object.

    Args:
        written_at: seconds since the epoch, on the server's clock.
    """

    key: str
    size: int
    etag: str
    crc64: int
    written_at: float


@dataclass(frozen=True, slots=True, order=True)
class Upload:
    """One multipart upload in progress between two times."""

    key: str
    upload_id: str
    started_at: float
    ends_at: float


class Buckets:
    """The objects of all buckets; each bucket is kept in byte order of the keys."""

    def __init__(self) -> None:
        self._objects: dict[tuple[str, str], dict[str, StoredObject]] = defaultdict(dict)
        self._order: dict[tuple[str, str], list[bytes]] = defaultdict(list)
        self.count = 0

    def put(self, bucket: str, region: str, stored: StoredObject) -> None:
        """Write an object; an older one with the same key is replaced."""
        location = bucket, region
        if stored.key not in self._objects[location]:
            insort(self._order[location], stored.key.encode())
            self.count += 1
        self._objects[location][stored.key] = stored

    def get(self, bucket: str, region: str, key: str) -> StoredObject | None:
        """Return one object, or None."""
        return self._objects[bucket, region].get(key)

    def after(self, bucket: str, region: str, prefix: str, marker: str) -> list[StoredObject]:
        """Return the objects under a prefix after a marker, in byte order of their keys."""
        order = self._order[bucket, region]
        head = prefix.encode()
        start = bisect_left(order, max(head, marker.encode() + b"\0" if marker else b""))
        end = bisect_left(order, head + b"\xff") if head else len(order)
        return [self._objects[bucket, region][key.decode()] for key in order[start:end]]


def make_object(key: str, size: int, written_at: float, salt: str) -> StoredObject:
    """Return an object as a multipart upload leaves it.

    An empty object is as a plain upload leaves it.
    """
    if size == 0:
        empty = hashlib.md5(b"", usedforsecurity=False).hexdigest()
        return StoredObject(key, 0, empty, 0, written_at)
    digest = hashlib.sha256(f"{salt}/{key}/{size}".encode()).digest()
    parts = -(-size // _PART_BYTES)
    crc64 = int.from_bytes(digest[16:24], "big")
    return StoredObject(key, size, f"{digest[:16].hex()}-{parts}", crc64, written_at)
