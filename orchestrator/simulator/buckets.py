"""What lies in the buckets."""

import hashlib
from bisect import bisect_left, insort
from collections import defaultdict
from dataclasses import dataclass

_PART = 64 << 20


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One object, whole.

    Args:
        written_at: the server's clock.
    """

    key: str
    size: int
    etag: str
    crc64: int
    written_at: float


@dataclass(frozen=True, slots=True, order=True)
class Upload:
    """One multipart upload that goes on."""

    key: str
    upload_id: str
    started_at: float


class Buckets:
    """The objects of all buckets, each bucket in key order."""

    def __init__(self) -> None:
        self._objects: dict[tuple[str, str], dict[str, StoredObject]] = defaultdict(dict)
        self._order: dict[tuple[str, str], list[bytes]] = defaultdict(list)
        self.count = 0

    def put(self, bucket: str, region: str, stored: StoredObject) -> None:
        """Writes an object, over an older one of the same key."""
        place = bucket, region
        if stored.key not in self._objects[place]:
            insort(self._order[place], stored.key.encode())
            self.count += 1
        self._objects[place][stored.key] = stored

    def get(self, bucket: str, region: str, key: str) -> StoredObject | None:
        """One object."""
        return self._objects[bucket, region].get(key)

    def after(self, bucket: str, region: str, prefix: str, marker: str) -> list[StoredObject]:
        """The objects under a prefix, in byte order of their keys, from after a marker on."""
        order = self._order[bucket, region]
        head = prefix.encode()
        start = bisect_left(order, max(head, marker.encode() + b"\0" if marker else b""))
        end = bisect_left(order, head + b"\xff") if head else len(order)
        return [self._objects[bucket, region][key.decode()] for key in order[start:end]]


def make_object(key: str, size: int, written_at: float, salt: str) -> StoredObject:
    """An object as an upload in parts leaves it; one of no bytes as a plain upload does."""
    if size == 0:
        empty = hashlib.md5(b"", usedforsecurity=False).hexdigest()
        return StoredObject(key, 0, empty, 0, written_at)
    digest = hashlib.sha256(f"{salt}/{key}/{size}".encode()).digest()
    parts = -(-size // _PART)
    crc64 = int.from_bytes(digest[16:24], "big")
    return StoredObject(key, size, f"{digest[:16].hex()}-{parts}", crc64, written_at)
