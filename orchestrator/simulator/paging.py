"""Pages of a listing, as COS cuts them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar


class Keyed(Protocol):
    """Something that has a key in a bucket."""

    @property
    def key(self) -> str:
        """The key."""
        ...


T = TypeVar("T", bound=Keyed)


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One page.

    Args:
        groups: common prefixes up to the delimiter, each in place of all that it leads.
        last: the last entry or group of a page that others follow; ``None`` on the last page.
    """

    entries: tuple[T, ...]
    groups: tuple[str, ...]
    last: T | str | None


def cut(items: Sequence[T], prefix: str, delimiter: str, marker: str, limit: int) -> Page[T]:
    """The first page of items that are in order and come after the marker."""
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
    """The common prefix that a key falls under."""
    end = key.find(delimiter, len(prefix)) if delimiter else -1
    return key[: end + len(delimiter)] if end >= 0 else None
