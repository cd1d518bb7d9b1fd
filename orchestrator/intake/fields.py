"""The rules of a manifest's columns: a raw value in, a usable one or a problem out.

A rule takes whatever CSV, JSON or a flag held. What the vendor might accept is let through: only
what is certain to fail, or cannot be told apart later, is refused here.
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
"""For hints alone: the vendor opens regions faster than we hear of them."""

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
_KINDS: Mapping[type, str] = {
    bool: "true or false",
    int: "a number",
    float: "a number",
    list: "a list",
    type(None): "null",
}
_SHOWN = 40
_REMEMBERED = 1000
"""Characters: a longer text is not kept for the rows that may repeat it."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a value cannot be used, and what to do about it."""

    reason: str
    remedy: str


def image_id(raw: object) -> tuple[str, ...] | Problem:
    """One image, as the only one of its request."""
    value = _text(raw)
    return value if isinstance(value, Problem) else _images([value])


def image_ids(raw: object) -> tuple[str, ...] | Problem:
    """Several images of one request: a list, or one text with semicolons in between."""
    if not isinstance(raw, list):
        value = _text(raw)
        if isinstance(value, Problem):
            return value
        return _images([part for part in value.split(";") if part.strip()])
    texts = [_text(part) for part in raw]
    problem = next((text for text in texts if isinstance(text, Problem)), None)
    return problem or _images([text for text in texts if isinstance(text, str)])


def region(raw: object) -> str | Problem:
    """A region's id; one that nobody has heard of may be new."""
    value = _text(raw)
    if isinstance(value, Problem) or _REGION.fullmatch(value):
        return value
    near = difflib.get_close_matches(value[:_SHOWN].lower(), KNOWN_REGIONS, n=1)
    hint = f"Did you mean {near[0]}?" if near else "Write it as in ap-singapore."
    return Problem(f"{quoted(value)} is no region id.", hint)


def bucket(raw: object) -> str | Problem:
    """A bucket's whole name, APPID included."""
    value = _text(raw)
    if isinstance(value, Problem) or _BUCKET.fullmatch(value):
        return value
    if _BUCKET_NAME.fullmatch(value):
        return Problem(
            f"{quoted(value)} has no APPID at its end.",
            "Append - and the account's APPID, as in backup-1250000000.",
        )
    return Problem(
        f"{quoted(value)} is no bucket name.",
        "Use the name alone: a-z, 0-9 and - with the APPID last, as in backup-1250000000.",
    )


def image_format(raw: object) -> ImageFormat | Problem:
    """The format of the exported files, in any case."""
    value = _text(raw)
    if isinstance(value, Problem):
        return value
    try:
        return ImageFormat(value.upper())
    except ValueError:
        return Problem(f"{quoted(value)} is no format.", f"Use one of {', '.join(ImageFormat)}.")


def prefix(raw: object) -> str | Problem:
    """What leads the objects' names; it has to be able to begin an object's key."""
    value = _text(raw)
    if isinstance(value, Problem):
        return value
    if _NOT_IN_A_KEY.search(value):
        return Problem(
            f"{quoted(value)} holds a control character, a backslash or half a character.",
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


def only_root_disk(raw: object) -> bool | Problem:
    """Whether the data disks are left out."""
    value = raw if isinstance(raw, bool) else _text(raw)
    if isinstance(value, bool | Problem):
        return value
    truth = _TRUTHS.get(value.lower())
    if truth is None:
        return Problem(f"{quoted(value)} is neither yes nor no.", "Use true or false.")
    return truth


def role_name(raw: object) -> str | Problem:
    """The role that writes to the bucket."""
    value = _text(raw)
    if isinstance(value, Problem) or _ROLE.fullmatch(value):
        return value
    return Problem(
        f"{quoted(value)} is no role name.",
        "Use the name from the CAM console: letters, digits and _.+=,@- up to 128.",
    )


def priority(raw: object) -> int | Problem:
    """Larger goes first."""
    value = str(raw) if isinstance(raw, int) and not isinstance(raw, bool) else _text(raw)
    if isinstance(value, Problem):
        return value
    if _WHOLE.fullmatch(value) and LOWEST_PRIORITY <= int(value) <= HIGHEST_PRIORITY:
        return int(value)
    return Problem(
        f"{quoted(value)} is no priority.",
        f"Use a whole number from {LOWEST_PRIORITY} to {HIGHEST_PRIORITY}.",
    )


def not_before(raw: object) -> datetime | Problem:
    """The earliest moment to send; UTC where no offset stands."""
    value = _text(raw)
    if isinstance(value, Problem):
        return value
    try:
        moment = datetime.fromisoformat(value)
        return moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC)
    except (ValueError, OverflowError):
        return Problem(
            f"{quoted(value)} is no moment.", "Write it in ISO 8601, as in 2026-12-31T22:00:00Z."
        )


RULES: Mapping[str, Callable[[object], object]] = {
    "image_id": image_id,
    "image_ids": image_ids,
    "region": region,
    "bucket": bucket,
    "format": image_format,
    "prefix": prefix,
    "only_root_disk": only_root_disk,
    "role_name": role_name,
    "priority": priority,
    "not_before": not_before,
}
"""Every column that a manifest may have."""


def checked(column: str, raw: object) -> object:
    """What the column's rule makes of a value."""
    if isinstance(raw, str) and len(raw) <= _REMEMBERED:
        return _checked_text(column, raw)
    return RULES[column](raw)


@lru_cache(maxsize=1024)
def _checked_text(column: str, text: str) -> object:
    # rows share their regions, buckets and prefixes: looked at once, and one copy of each is kept
    return RULES[column](text)


def domain(bucket: str, region: str) -> Problem | None:
    """What is wrong with bucket and region together, each being good for itself."""
    length = len(f"{bucket}.cos.{region}.myqcloud.com")
    if length <= LONGEST_DOMAIN:
        return None
    return Problem(
        f"{quoted(bucket)} in {region} makes a domain of {length} characters.",
        f"COS allows {LONGEST_DOMAIN}: check the name, or use a bucket with a shorter one.",
    )


@lru_cache(maxsize=256)
def unknown_column(name: str) -> Problem:
    """A column that is none of ours, with the one that was probably meant."""
    if not name:
        return Problem("a column has no name.", "Name it or remove it.")
    near = difflib.get_close_matches(name[:_SHOWN].lower(), RULES, n=1, cutoff=0.5)
    hint = f"Did you mean {near[0]}?" if near else f"Known columns are {', '.join(RULES)}."
    return Problem(f"{quoted(name)} is no column of a manifest.", hint)


def quoted(value: str) -> str:
    """A value fit for one line of a terminal: shortened, the unprintable escaped."""
    length = f" ({len(value)} characters)" if len(value) > _SHOWN else ""
    return f"'{escaped(value)}'{length}"


def escaped(value: str) -> str:
    """A name's beginning; control characters, direction marks and broken bytes show as escapes."""
    head = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in value[:_SHOWN])
    return f"{head}…" if len(value) > _SHOWN else head


def repeated(names: Iterable[str]) -> str | None:
    """The first of the names that has stood there before."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def _images(values: list[str]) -> tuple[str, ...] | Problem:
    if not values:
        return Problem("names no image.", "Name at least one image id.")
    ids = tuple(value.strip() for value in values)
    bad = next((one for one in ids if not _IMAGE.fullmatch(one)), None)
    if bad is not None:
        return Problem(
            f"{quoted(bad)} is no image id.",
            "Image ids look like img-1a2b3c4d; several for one request go into image_ids.",
        )
    if twice := repeated(ids):
        return Problem(f"{twice} stands twice in one request.", "Name each image once.")
    return ids


def _text(raw: object) -> str | Problem:
    if isinstance(raw, str):
        return raw.strip()
    kind = _KINDS.get(type(raw), "an object")
    return Problem(f"is {kind}, which does not belong here.", "Write the value as text.")
