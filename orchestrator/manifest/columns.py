"""The rules of single values: a raw value in, a normalized value or a problem out.

A rule accepts whatever a CSV cell, a JSON value, a flag or a Python argument may hold. It refuses
only what is certain to fail or ambiguous later; the vendor may accept everything else.
"""

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache

from orchestrator.model import ImageFormat

KNOWN_REGIONS = (
    *("ap-bangkok", "ap-beijing", "ap-chengdu", "ap-chongqing", "ap-guangzhou", "ap-hongkong"),
    *("ap-jakarta", "ap-nanjing", "ap-seoul", "ap-shanghai", "ap-singapore", "ap-tokyo"),
    *("eu-frankfurt", "me-saudi-arabia", "na-ashburn", "na-siliconvalley", "sa-saopaulo"),
)
"""Only for suggestions: the vendor may have opened regions that are not listed here."""

LONGEST_DOMAIN = 60
"""Characters of ``<bucket>.cos.<region>.myqcloud.com`` (source: COS, specifications and limits)."""

LONGEST_PREFIX = 850 - len(f"-{'tag':12}_img-{'id':32}_system_{'snapshot':16}.qcow2")
"""Bytes: an object's key holds 850 (source: COS, specifications and limits), and what the job's
tag and the vendor append to the prefix takes 80 of them at most."""

LOWEST_PRIORITY, HIGHEST_PRIORITY = -1000, 1000

_IMAGE = re.compile(r"img-[0-9a-z]{4,32}")
_REGION = re.compile(r"(?=.{1,32}\Z)[a-z]{2}-[a-z0-9-]+")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9-]*-[0-9]{5,}")
_BUCKET_NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
_ROLE = re.compile(r"[A-Za-z0-9_.+=,@-]{1,128}")
_WHOLE = re.compile(r"[+-]?[0-9]{1,9}")
_NOT_IN_A_KEY = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\\]")
_TRUTHS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_TYPE_NAMES: Mapping[type, str] = {
    bool: "a boolean",
    int: "a number",
    float: "a number",
    list: "a list",
    type(None): "null",
}
_IMAGE_EXAMPLE = "Image ids look like img-1a2b3c4d; several for one request go into image_ids."
_BOOLEANS = "Use true or false."
_PRIORITY_RANGE = f"Use a whole number from {LOWEST_PRIORITY} to {HIGHEST_PRIORITY}."
_TIMESTAMP_EXAMPLE = "Write it in ISO 8601, as in 2026-12-31T22:00:00Z."
_SHOWN = 40
_LONGEST_CACHED = 1000
"""Characters: the result for a longer text is not cached."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a value cannot be used, and what to do about it."""

    reason: str
    remedy: str


def image_id(raw: object) -> tuple[str, ...] | Problem:
    """Check one image id, as the only one of its request."""
    value = _text(raw)
    return value if isinstance(value, Problem) else _images([value])


def image_ids(raw: object) -> tuple[str, ...] | Problem:
    """Check the images of one request: a list, a tuple, or one text separated by semicolons."""
    if not isinstance(raw, list | tuple):
        value = _text(raw)
        if isinstance(value, Problem):
            return value
        return _images([part for part in value.split(";") if part.strip()])
    texts = [_text(part) for part in raw]
    problem = next((text for text in texts if isinstance(text, Problem)), None)
    return problem or _images([text for text in texts if isinstance(text, str)])


def region(raw: object) -> str | Problem:
    """Check a region; an unknown one may be new and is accepted."""
    value = _text(raw)
    if isinstance(value, Problem) or _REGION.fullmatch(value):
        return value
    near = difflib.get_close_matches(value[:_SHOWN].lower(), KNOWN_REGIONS, n=1)
    hint = f"Did you mean {near[0]}?" if near else "Use a region such as ap-singapore."
    return Problem(f"{quoted(value)} is not a valid region.", hint)


def bucket(raw: object) -> str | Problem:
    """Check the full name of a bucket, APPID included."""
    value = _text(raw)
    if isinstance(value, Problem) or _BUCKET.fullmatch(value):
        return value
    if _BUCKET_NAME.fullmatch(value):
        return Problem(
            f"{quoted(value)} has no APPID at its end.",
            "Append - and the account's APPID, as in backup-1250000000.",
        )
    return Problem(
        f"{quoted(value)} is not a valid bucket name.",
        "Use the name alone: a-z, 0-9 and - with the APPID last, as in backup-1250000000.",
    )


def image_format(raw: object) -> ImageFormat | Problem:
    """Check the format of the exported files; upper and lower case are equal."""
    value = _text(raw)
    if isinstance(value, Problem):
        return value
    try:
        return ImageFormat(value.upper())
    except ValueError:
        formats = ", ".join(ImageFormat)
        return Problem(f"{quoted(value)} is not a valid format.", f"Use one of {formats}.")


def prefix(raw: object) -> str | Problem:
    """Check the prefix of the object keys."""
    value = _text(raw)
    if isinstance(value, Problem):
        return value
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
    if (size := len(value.encode())) > LONGEST_PREFIX:
        return Problem(
            f"{quoted(value)} takes {size} bytes as UTF-8.", f"Use {LONGEST_PREFIX} at most."
        )
    return value


def boolean(raw: object) -> bool | Problem:
    """Check a boolean, which may be written as true, yes or 1, and as false, no or 0."""
    value = raw if isinstance(raw, bool) else _text(raw, _BOOLEANS)
    if isinstance(value, bool | Problem):
        return value
    truth = _TRUTHS.get(value.lower())
    if truth is None:
        return Problem(f"{quoted(value)} is not a boolean.", _BOOLEANS)
    return truth


def role_name(raw: object) -> str | Problem:
    """Check the name of the role that writes to the bucket."""
    value = _text(raw)
    if isinstance(value, Problem) or _ROLE.fullmatch(value):
        return value
    return Problem(
        f"{quoted(value)} is not a valid role name.",
        "Use the name from the CAM console: letters, digits and _.+=,@- up to 128.",
    )


def priority(raw: object) -> int | Problem:
    """Check a priority; jobs with a larger one are sent first."""
    value = _integer_text(raw) or _text(raw, _PRIORITY_RANGE)
    if isinstance(value, Problem):
        return value
    if _WHOLE.fullmatch(value) and LOWEST_PRIORITY <= int(value) <= HIGHEST_PRIORITY:
        return int(value)
    return Problem(f"{quoted(value)} is not a valid priority.", _PRIORITY_RANGE)


def not_before(raw: object) -> datetime | Problem:
    """Check the earliest time to send, as a datetime or ISO 8601 text; UTC without an offset."""
    value = raw.isoformat() if isinstance(raw, datetime) else _text(raw, _TIMESTAMP_EXAMPLE)
    if isinstance(value, Problem):
        return value
    try:
        moment = datetime.fromisoformat(value)
        return moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC)
    except (ValueError, OverflowError):
        return Problem(f"{quoted(value)} is not a valid timestamp.", _TIMESTAMP_EXAMPLE)


RULES: Mapping[str, Callable[[object], object]] = {
    "image_id": image_id,
    "image_ids": image_ids,
    "region": region,
    "bucket": bucket,
    "format": image_format,
    "prefix": prefix,
    "only_root_disk": boolean,
    "role_name": role_name,
    "priority": priority,
    "not_before": not_before,
}
"""The rule of every column that a manifest may have."""

IMAGE_COLUMNS = ("image_id", "image_ids")
"""Columns that name the images; a row uses one of them."""

_FIELD_RULES = {**RULES, "exact_names": boolean}


def checked(column: str, raw: object) -> object:
    """Apply the rule of a column or field: return the normalized value or a Problem."""
    if type(raw) is str and len(raw) <= _LONGEST_CACHED:
        return _checked_text(column, raw)
    return _FIELD_RULES[column](raw)


@lru_cache(maxsize=1024)
def _checked_text(column: str, text: str) -> object:
    """Apply the rule to a text, or return the cached result."""
    # rows share regions, buckets and prefixes: each is checked once and kept in memory once
    return _FIELD_RULES[column](text)


def is_blank(raw: object) -> bool:
    """Return whether a value counts as not given."""
    return raw is None or (isinstance(raw, str) and not raw.strip())


def missing(column: str, remedy: str) -> Problem:
    """Return the problem of a required value that is not given."""
    return Problem(f"no {'image' if column in IMAGE_COLUMNS else column} is given.", remedy)


@lru_cache(maxsize=256)
def domain(bucket: str, region: str) -> Problem | None:
    """Check the domain that valid bucket and region names form, unless one of them is empty."""
    length = len(f"{bucket}.cos.{region}.myqcloud.com")
    if length <= LONGEST_DOMAIN or not (bucket and region):
        return None
    return Problem(
        f"{quoted(bucket)} in {region} forms a domain of {length} characters.",
        f"COS allows {LONGEST_DOMAIN}: check the name, or use a bucket with a shorter name.",
    )


@lru_cache(maxsize=256)
def unknown_column(name: str) -> Problem:
    """Return the problem of an unknown column, with the nearest known one."""
    if not name:
        return Problem("a column has no name.", "Name it or remove it.")
    near = difflib.get_close_matches(name[:_SHOWN].lower(), RULES, n=1, cutoff=0.5)
    hint = f"Did you mean {near[0]}?" if near else f"Known columns are {', '.join(RULES)}."
    return Problem(f"{quoted(name)} is not a known column.", hint)


def quoted(value: str) -> str:
    """Quote a value for one line of a terminal: shortened, with escapes for what does not print."""
    length = f" ({len(value)} characters)" if len(value) > _SHOWN else ""
    return f"'{escaped(value)}'{length}"


def escaped(value: str) -> str:
    """Return the start of a text, with escapes for control characters and broken bytes."""
    head = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in value[:_SHOWN])
    return f"{head}…" if len(value) > _SHOWN else head


def repeated(names: Iterable[str]) -> str | None:
    """Return the first name that occurs for the second time, else None."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def _images(values: list[str]) -> tuple[str, ...] | Problem:
    """Check the image ids of one request."""
    if not values:
        return Problem("contains no image id.", "Give at least one image id.")
    ids = tuple(value.strip() for value in values)
    bad = next((one for one in ids if not _IMAGE.fullmatch(one)), None)
    if bad is not None:
        return Problem(f"{quoted(bad)} is not a valid image id.", _IMAGE_EXAMPLE)
    if twice := repeated(ids):
        return Problem(f"{twice} is listed twice in one request.", "List each image once.")
    return ids


def _integer_text(raw: object) -> str | None:
    """Return an integer as text, else None; a boolean is not an integer."""
    # an integer of 20 characters or more is left out: rows.py reads it from JSON as a float
    if isinstance(raw, int) and not isinstance(raw, bool) and -(10**18) < raw < 10**19:
        return str(int(raw))
    return None


def _text(raw: object, remedy: str = "Write the value as text.") -> str | Problem:
    """Return a text without surrounding blanks, or the problem of a value that is not text."""
    if isinstance(raw, str):
        return raw.strip()
    other = "an object" if isinstance(raw, dict) else escaped(type(raw).__name__)
    return Problem(f"has the wrong type ({_TYPE_NAMES.get(type(raw), other)}).", remedy)
