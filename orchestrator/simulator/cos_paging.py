"""Pages of a COS listing: delimiter, marker and limit."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar


class Keyed(Protocol):
    """An object or upload with a key in a bucket."""

    @property
    def key(self) -> str:
        """The key."""
        ...


T = TypeVar("T", bound=Keyed)


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One page of a listing.

    Args:
        groups: common prefixes up to the delimiter; each replaces all entries under it.
        last: last entry or group of this page, if another page follows; else ``None``.
    """

    entries: tuple[T, ...]
    groups: tuple[str, ...]
    last: T | str | None


def cut_page(items: Sequence[T], prefix: str, delimiter: str, marker: str, limit: int) -> Page[T]:
    """Return the first page of sorted items that come after the marker."""
    entries: list[T] = []
    groups: list[str] = []
    last: T | str | None = None
    for item in items:
        group = _group(item.key, prefix, delimiter)
        if group is not None and (group == marker or group in groups[-1:]):
            continue
        if len(entries) + len(groups) == limit:
            return Page(tuple(entries), tuple(groups), last)
        if group is None:
            entries.append(item)
        else:
            groups.append(group)
        last = item if group is None else group
    return Page(tuple(entries), tuple(groups), None)


def _group(key: str, prefix: str, delimiter: str) -> str | None:
    """Return the common prefix of a key, or None."""
    end = key.find(delimiter, len(prefix)) if delimiter else -1
    return key[: end + len(delimiter)] if end >= 0 else None
