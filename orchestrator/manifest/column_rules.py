"""The rules of each column's values: a raw value in, the normalized value or a Problem out.

CSV cells, JSON values, flags and the arguments of ExportRequest are checked by these rules alone.
A rule refuses only what is certain to fail or would be ambiguous later; the vendor may accept
everything else.
"""

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from orchestrator.model import ImageFormat

KNOWN_REGIONS = (
    *("ap-bangkok", "ap-beijing", "ap-chengdu", "ap-chongqing", "ap-guangzhou", "ap-hongkong"),
    *("ap-jakarta", "ap-nanjing", "ap-seoul", "ap-shanghai", "ap-singapore", "ap-tokyo"),
    *("eu-frankfurt", "me-saudi-arabia", "na-ashburn", "na-siliconvalley", "sa-saopaulo"),
)
"""Only for suggestions: the vendor may have opened regions that are not listed here."""

MAX_DOMAIN = 60
"""Characters of ``<bucket>.cos.<region>.myqcloud.com`` (source: COS, specifications and limits)."""

MAX_PREFIX = 850 - len(f"-{'tag':12}_img-{'id':32}_system_{'snapshot':16}.qcow2")
"""Bytes: an object's key holds 850 (source: COS, specifications and limits), and what the job's
tag and the vendor append to the prefix takes 80 of them at most."""

MIN_PRIORITY, MAX_PRIORITY = -1000, 1000

_IMAGE = re.compile(r"img-[0-9a-z]{4,32}")
_REGION = re.compile(r"(?=.{1,32}\Z)[a-z]{2}-[a-z0-9-]+")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9-]*-[0-9]{5,}")
_BUCKET_WITHOUT_APPID = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
_ROLE = re.compile(r"[A-Za-z0-9_.+=,@-]{1,128}")
_INTEGER = re.compile(r"[+-]?[0-9]{1,9}")
_NOT_IN_A_KEY = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\\]")
_BOOLEANS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}

_TYPE_NAMES: Mapping[type, str] = {
    bool: "a boolean",
    int: "a number",
    float: "a number",
    list: "a list",
    type(None): "null",
}
_MAX_SHOWN = 40
"""Characters of a value that a message shows."""

_USE_TEXT = "Write the value as text."
_USE_IMAGE_IDS = "Image ids look like img-1a2b3c4d; several for one request go into image_ids."
_USE_BOOLEAN = "Use true or false."
_USE_PRIORITY = f"Use a whole number from {MIN_PRIORITY} to {MAX_PRIORITY}."
_USE_TIMESTAMP = "Write it in ISO 8601, as in 2026-12-31T22:00:00Z."


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a value cannot be used, and what to do about it."""

    reason: str
    remedy: str


def image_ids(value: str | Sequence[object]) -> tuple[str, ...] | Problem:
    """Check the images of one request: a list, or one text separated by semicolons."""
    if isinstance(value, str):
        value = [part for part in value.split(";") if part.strip()]
    if not value:
        return Problem("contains no image id.", "Give at least one image id.")
    images: dict[str, None] = {}  # an ordered set
    for part in value:
        if not isinstance(part, str):
            return _wrong_type(part, _USE_TEXT)
        image = part.strip()
        if not _IMAGE.fullmatch(image):
            return Problem(f"{quoted(image)} is not a valid image id.", _USE_IMAGE_IDS)
        if image in images:
            return Problem(f"{image} is listed twice in one request.", "List each image once.")
        images[image] = None
    return tuple(images)


def region(value: str) -> str | Problem:
    """Check a region; an unknown one may be new and is accepted."""
    if _REGION.fullmatch(value):
        return value
    near = difflib.get_close_matches(value[:_MAX_SHOWN].lower(), KNOWN_REGIONS, n=1)
    hint = f"Did you mean {near[0]}?" if near else "Use a region such as ap-singapore."
    return Problem(f"{quoted(value)} is not a valid region.", hint)


def bucket(value: str) -> str | Problem:
    """Check the full name of a bucket, APPID included."""
    if _BUCKET.fullmatch(value):
        return value
    if _BUCKET_WITHOUT_APPID.fullmatch(value):
        return Problem(
            f"{quoted(value)} has no APPID at its end.",
            "Append - and the account's APPID, as in backup-1250000000.",
        )
    return Problem(
        f"{quoted(value)} is not a valid bucket name.",
        "Use the name alone: a-z, 0-9 and - with the APPID last, as in backup-1250000000.",
    )


def image_format(value: str) -> ImageFormat | Problem:
    """Check the format of the exported files; upper and lower case are equal."""
    try:
        return ImageFormat(value.upper())
    except ValueError:
        formats = ", ".join(ImageFormat)
        return Problem(f"{quoted(value)} is not a valid format.", f"Use one of {formats}.")


def prefix(value: str) -> str | Problem:
    """Check the prefix of the object keys."""
    if _NOT_IN_A_KEY.search(value):
        return Problem(
            f"{quoted(value)} contains a control character, a backslash or an unpaired surrogate.",
            "Use / between folders, and printable characters.",
        )
    if value.startswith("/") or "//" in value or not {".", ".."}.isdisjoint(value.split("/")):
        return Problem(
            f"{quoted(value)} begins with / or has a part that is empty, . or ..",
            "Write folders as in backup/2026.",
        )
    if (size := len(value.encode())) > MAX_PREFIX:
        return Problem(
            f"{quoted(value)} takes {size} bytes as UTF-8.", f"Use at most {MAX_PREFIX}."
        )
    return value


def boolean(value: str | bool) -> bool | Problem:
    """Check a boolean, which may be written as true, yes or 1, and as false, no or 0."""
    result = _BOOLEANS.get(str(value).lower())
    if result is None:
        return Problem(f"{quoted(str(value))} is not a boolean.", _USE_BOOLEAN)
    return result


def role_name(value: str) -> str | Problem:
    """Check the name of the role that writes to the bucket."""
    if _ROLE.fullmatch(value):
        return value
    return Problem(
        f"{quoted(value)} is not a valid role name.",
        "Use the name from the CAM console: letters, digits and _.+=,@- up to 128.",
    )


def priority(value: str | int) -> int | Problem:
    """Check a priority; jobs with a larger one are sent first."""
    if isinstance(value, str):
        if not _INTEGER.fullmatch(value):
            return Problem(f"{quoted(value)} is not a valid priority.", _USE_PRIORITY)
        value = int(value)
    if MIN_PRIORITY <= value <= MAX_PRIORITY:
        return int(value)
    # the number itself is left out: Python writes none of more than 4300 digits as text
    return Problem("the priority is out of range.", _USE_PRIORITY)


def not_before(value: str | datetime) -> datetime | Problem:
    """Check the earliest time to send, a datetime or ISO 8601 text; return it in UTC.

    A time without an offset is taken as UTC.
    """
    text = value.isoformat() if isinstance(value, datetime) else value
    try:
        moment = datetime.fromisoformat(text)
        return moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC)
    except (ValueError, OverflowError):
        return Problem(f"{quoted(text)} is not a valid timestamp.", _USE_TIMESTAMP)


_RULES: Mapping[str, tuple[Callable[[Any], object], tuple[type, ...], str]] = {
    "image_id": (lambda one: image_ids([one]), (), _USE_TEXT),
    "image_ids": (image_ids, (list, tuple), _USE_TEXT),
    "region": (region, (), _USE_TEXT),
    "bucket": (bucket, (), _USE_TEXT),
    "format": (image_format, (), _USE_TEXT),
    "prefix": (prefix, (), _USE_TEXT),
    "only_root_disk": (boolean, (bool,), _USE_BOOLEAN),
    "role_name": (role_name, (), _USE_TEXT),
    "priority": (priority, (int,), _USE_PRIORITY),
    "not_before": (not_before, (datetime,), _USE_TIMESTAMP),
    "exact_names": (boolean, (bool,), _USE_BOOLEAN),
}
"""For each column or field its rule, which takes a text without outer blanks; the types besides
text that the rule accepts; and the remedy for a value of another type."""

COLUMNS = dict.fromkeys(name for name in _RULES if name != "exact_names")
"""The columns that a manifest may have, as an ordered set."""


def check(field: str, raw: object) -> object:
    """Return the normalized value of a column or field, or a Problem."""
    if isinstance(raw, str):
        return _check_text(field, raw.strip())
    rule, types, remedy = _RULES[field]
    # to Python a boolean is an integer
    if isinstance(raw, types) and isinstance(raw, bool) == (bool in types):
        return rule(raw)
    return _wrong_type(raw, remedy)


# rows share regions, buckets and prefixes: each is checked and stored only once
@lru_cache(maxsize=256)
def _check_text(field: str, text: str) -> object:
    return _RULES[field][0](text)


def is_blank(raw: object) -> bool:
    """Return whether a value counts as not given."""
    return raw is None or (isinstance(raw, str) and not raw.strip())


def check_domain(bucket: str, region: str) -> Problem | None:
    """Check the length of the domain that valid bucket and region names form."""
    length = len(f"{bucket}.cos.{region}.myqcloud.com")
    if length <= MAX_DOMAIN:
        return None
    return Problem(
        f"{quoted(bucket)} in {region} forms a domain of {length} characters.",
        f"COS allows {MAX_DOMAIN}: check the name, or use a bucket with a shorter name.",
    )


@lru_cache(maxsize=256)  # the search is slow, and every JSON row may repeat the same unknown key
def unknown_column(name: str) -> Problem:
    """Return the problem of an unknown column, with the nearest known one."""
    if not name:
        return Problem("a column has no name.", "Name it or remove it.")
    near = difflib.get_close_matches(name[:_MAX_SHOWN].lower(), COLUMNS, n=1, cutoff=0.5)
    hint = f"Did you mean {near[0]}?" if near else f"Known columns are {', '.join(COLUMNS)}."
    return Problem(f"{quoted(name)} is not a known column.", hint)


def quoted(value: str) -> str:
    """Quote a value for one line of a terminal: shortened, with escapes for what does not print."""
    length = f" ({len(value)} characters)" if len(value) > _MAX_SHOWN else ""
    return f"'{escaped(value)}'{length}"


def escaped(value: str) -> str:
    """Return the start of a text, with escapes for control characters and broken bytes."""
    head = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in value[:_MAX_SHOWN])
    return f"{head}…" if len(value) > _MAX_SHOWN else head


def _wrong_type(raw: object, remedy: str) -> Problem:
    other = "an object" if isinstance(raw, dict) else escaped(type(raw).__name__)
    return Problem(f"has the wrong type ({_TYPE_NAMES.get(type(raw), other)}).", remedy)
