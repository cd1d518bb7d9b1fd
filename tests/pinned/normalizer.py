"""Replaces what differs from run to run in data: times, ids, tags, paths, processes."""

import re
from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

_MOMENT = re.compile(r"\w+_(at|until|since)|at|last_modified|next_probe|since")
_SECONDS = re.compile(r"(\w+_)?seconds(_left)?")
_PLACEHOLDERS = {
    # sentences for a person may be reworded
    **dict.fromkeys(("message", "remedy", "warnings", "proof"), "<text>"),
    **dict.fromkeys(("etag", "baseline_etag", "crc64"), "<checksum>"),
}
_MADE_UP_BATCH = re.compile(r"\d{8}-\d{6}-[0-9a-f]{4}")

_Rows = Sequence[Mapping[str, Any]]


class Normalizer:
    """Knows the names that one run of a scenario has made up.

    Args:
        jobs: the lines of the history, each with the tag of its job.
        ledger: the simulator's requests, each with the ids that it gave.
    """

    def __init__(self, jobs: _Rows, ledger: _Rows, folder: Path, url: str) -> None:
        # the tag of a part begins with that of the whole
        tags = sorted(((job["tag"], job["id"]) for job in jobs), key=_longest_first)
        self._names = [(str(folder), "<folder>"), (url, "<endpoint>")]
        self._names += [(tag, f"<tag {number}>") for tag, number in tags]
        self._tasks = _named(ledger, "task_id", "task")
        self._requests = _named(ledger, "request_id", "request")

    def normalized(self, value: Any, key: str = "") -> Any:
        """Return data with the same placeholder in every run.

        Args:
            key: the name of the field that holds it.
        """
        if key == "vendor":
            return "<what was learned>"  # times and offsets
        match value:
            case {"id": _, "kind": _}:
                # events of several jobs are numbered in the order in which they came
                return self._members({**value, "id": "<number>"})
            case dict():
                return self._members(value)
            case list():
                # halts are in the order in which they came
                ordered = sorted(value, key=itemgetter("name")) if key == "halts" else value
                return [self.normalized(one, key) for one in ordered]
            case None | "" | bool():
                return value
        return self._scalar(str(value), key) or self._text(value)

    def _members(self, value: Mapping[str, Any]) -> dict[str, Any]:
        return {name: self.normalized(one, name) for name, one in value.items()}

    def _scalar(self, text: str, key: str) -> str | None:
        """Return the placeholder for the value of a field, or ``None`` if it has none."""
        if key in {"actor", "owner"}:
            return "<person>" if "@" in text else "<process>"
        if _MOMENT.fullmatch(key):
            return "<time>"
        if _SECONDS.fullmatch(key):
            return "<seconds>"
        if key == "task_id":
            return self._tasks.get(text, "<task that is not in the ledger>")
        if key == "request_id":
            return self._requests.get(text, "<request that is not in the ledger>")
        return _PLACEHOLDERS.get(key)

    def _text(self, value: Any) -> Any:
        """Return a text without tags, paths and addresses."""
        if not isinstance(value, str):
            return value
        for name, placeholder in self._names:
            value = value.replace(name, placeholder)
        return _MADE_UP_BATCH.sub("<batch>", value)


def _longest_first(tag: tuple[str, int]) -> int:
    return -len(tag[0])


def _named(ledger: _Rows, key: str, what: str) -> dict[str, str]:
    """The requests that gave an id, by that id."""
    return {
        str(entry[key]): f"<{what} of {images_of(entry)}>"
        for entry in ledger
        if entry[key] is not None
    }


def images_of(entry: Mapping[str, Any]) -> str:
    """Return the images of a request as one word."""
    return "+".join(entry["image_ids"]) or str(entry["action"])


def event_line(event: Mapping[str, Any]) -> str:
    """Return an event as kind, state before and state after."""
    kind, before, after = (event[name] for name in ("kind", "from_state", "to_state"))
    return f"{kind}: {before or 'nothing'} → {after}" if after else str(kind)


def request_line(entry: Mapping[str, Any]) -> str:
    """Return a request to an API, and how it fared, without ids and times."""
    images = entry["image_ids"]
    if entry["action"] == "DescribeImages":
        images = sorted(images)
    fates = ["accepted"] if entry["accepted"] else []
    if entry["code"] is not None:
        fates.append(entry["code"])
    if entry["fault"] is not None:
        fates.append(f"lost by {entry['fault']}")
    if entry["dry_run"]:
        fates.append("dry run")
    words = [entry["service"], entry["action"], entry["region"], *images]
    return f"{' '.join(filter(None, words))} → {', '.join(fates) or 'answered'}"


def lookup_line(entry: Mapping[str, Any]) -> str:
    """Return the kind of a look into a bucket, and its answer."""
    answer = entry["fault"] or entry["code"] or "answered"
    return f"{entry['action']} {entry['bucket']} → {answer}"


def sorted_counts(lines: Iterable[str]) -> dict[str, int]:
    """Count equal lines, in the order of the alphabet."""
    counts: dict[str, int] = {}
    for line in sorted(lines):
        counts[line] = counts.get(line, 0) + 1
    return counts
