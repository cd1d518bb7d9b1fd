"""The ledger: each request, its answer, and whether an export really began."""

import json
from collections import Counter
from dataclasses import asdict, dataclass
from io import TextIOBase
from pathlib import Path
from types import TracebackType
from typing import Self


@dataclass(slots=True)
class Entry:
    """One request; it is written when the answer is decided, before the answer is sent.

    Args:
        arrived: seconds since the epoch, on the real clock.
        monotonic: the same moment on the machine's monotonic clock.
        connection: number of the connection, from 1.
        key: on COS, the object's key or the prefix of the listing.
        http_status: status that was sent; ``None`` if nothing was sent.
        code: the service's code; ``None`` for success, or if the service was not reached.
        fault: the network fault, such as ``reset-after``; latency alone is not recorded.
        accepted: whether an export began, even if the answer was lost.
    """

    service: str
    action: str
    connection: int
    arrived: float = 0.0
    monotonic: float = 0.0
    account: str | None = None
    region: str | None = None
    image_ids: tuple[str, ...] = ()
    prefixes: tuple[str, ...] = ()
    bucket: str | None = None
    key: str | None = None
    dry_run: bool = False
    http_status: int | None = None
    code: str | None = None
    task_id: int | None = None
    cos_paths: tuple[str, ...] = ()
    request_id: str | None = None
    fault: str | None = None
    accepted: bool = False


class Ledger:
    """All entries since the start: in memory and, within the ``with`` block, in a file.

    Args:
        path: file to append to; ``None`` keeps the ledger in memory only.
    """

    def __init__(self, path: Path | None) -> None:
        self.entries: list[Entry] = []
        self.codes: Counter[str] = Counter()
        self._path = path
        self._file: TextIOBase | None = None

    def __enter__(self) -> Self:
        if self._path is not None:
            self._file = self._path.open("a", encoding="utf-8")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._file is not None:
            self._file.close()

    def write(self, entry: Entry) -> None:
        """Add an entry, and flush it to the file."""
        self.entries.append(entry)
        if entry.code is not None:
            self.codes[entry.code] += 1
        if self._file is not None:
            self._file.write(line(entry))
            self._file.flush()


def line(entry: Entry) -> str:
    """Return an entry as a line of JSON."""
    return json.dumps(asdict(entry), ensure_ascii=False) + "\n"
