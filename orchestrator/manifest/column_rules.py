"""The rules of each column's values: a raw value in, the normalized value or a Problem out.

CSV cells, JSON values, flags and the arguments of ExportRequest are checked by these rules alone.
A rule refuses only what is certain to fail or would be ambiguous later; the vendor may accept
everything else.
"""

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from orchestrator.manifest.problems import MAX_SHOWN, Problem, escaped, quoted
from orchestrator.manifest.regions import region
from orchestrator.model import ImageFormat

MAX_DOMAIN = 60
"""Characters of ``<bucket>.cos.<region>.myqcloud.com`` (source: COS, specifications and limits)."""

MAX_PREFIX = 850 - len(f"-{'tag':12}_img-{'id':32}_system_{'snapshot':16}.qcow2")
"""Bytes: an object's key holds 850 (source: COS, specifications and limits), and what the job's
tag and the vendor append to the prefix takes 80 of them at most."""

MIN_PRIORITY, MAX_PRIORITY = -1000, 1000

IMAGE_ID = re.compile(r"img-[0-9a-z]+")
"""How the id of an image looks, whatever its length."""

_IMAGE_ID_LENGTHS = range(8, 37)
_BUCKET = re.compile(r"[a-z0-9][a-z0-9-]*-[0-9]{5,}")
_BUCKET_IN_ADDRESS = re.compile(
    r"(?:[a-z]+://)?(?:cos[a-z0-9.-]*/)?(?P<bucket>[a-z0-9][a-z0-9-]*-[0-9]{5,})"
    r"(?P<host>\.[a-z0-9.:-]+)?(?:/(?P<key>[^?#]*))?(?:[?#].*)?",
    re.DOTALL,
)
_BUCKET_WITHOUT_APPID = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
_ROLE = re.compile(r"[A-Za-z0-9_.+=,@-]{1,128}")
_INTEGER = re.compile(r"([+-]?[0-9]{1,9})(?:\.0*)?")  # a spreadsheet may write 5 as 5.0
_DATE_OF_SPREADSHEET = re.compile(
    r"([0-9]{4})([/.-])([0-9]{1,2})\2([0-9]{1,2})"
    r"(?:[ T]+([0-9]{1,2}):([0-9]{2})(?::([0-9]{2}(?:\.[0-9]{1,6})?))?)?"
    r" ?(Z|UTC|GMT|[+-][0-9]{2}:?[0-9]{2})?"
)
_NOT_IN_A_KEY = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\\]")
_BOOLEANS = {
    **dict.fromkeys(("true", "t", "yes", "y", "1", "1.0"), True),
    **dict.fromkeys(("false", "f", "no", "n", "0", "0.0"), False),
}
"""Spreadsheets may write 1 as 1.0, and databases true as t."""

_INVISIBLE = "\u00ad\u200b\u200c\u200d\u200e\u200f\u2060\ufeff"
_TRIMMED = _INVISIBLE + "".join(map(chr, filter(lambda code: chr(code).isspace(), range(0x3001))))
"""Blanks, and characters without width, which come along when text is copied from a page."""

_COMMA = re.compile("[,\uff0c\u3001]")
"""Also the full-width one and that of Chinese lists."""

_FULL_WIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | {0x3000: " "}
del _FULL_WIDTH[0xFF0C]  # the comma is a fault in almost all values, and is shown as it was typed

_CURLY_QUOTES = "\u2018\u2019\u201a\u201c\u201d\u201e\u00ab\u00bb"
_PAIRS_OF_QUOTES = {
    *("\u2018\u2019", "\u201a\u2018", "\u201c\u201d", "\u201e\u201c", "\u201e\u201d"),
    *("\u00ab\u00bb", "\u00bb\u00ab"),
}
_NOT_IN_A_NAME = re.compile(rf"[\s_{_INVISIBLE}{_CURLY_QUOTES}-]+")
"""What the name of a column may have between its words and around them."""

_TYPE_NAMES: Mapping[type, str] = {
    bool: "a boolean",
    int: "a number",
    float: "a number",
    list: "a list",
    dict: "an object",
    type(None): "null",
}
_USE_TEXT = "Write the value as text, in quotes."
_USE_IMAGE_IDS = "Image ids look like img-1a2b3c4d; several for one request go into image_ids."
_USE_SEMICOLON = "Instead of {} write ; in image_ids for one request, or use a row for each image."
_USE_DELIMITER = "Separate the cells of a row with the delimiter of the header, not {}."
_USE_BOOLEAN = "Use true or false."
_USE_PRIORITY = f"Use a whole number from {MIN_PRIORITY} to {MAX_PRIORITY}."
_USE_TIMESTAMP = "Write it in ISO 8601, as in 2026-12-31T22:00:00Z or 2026-12-31T22:00:00+08:00."


def image_ids(value: str | Sequence[object]) -> tuple[str, ...] | Problem:
    """Check the images of one request: a list, or one text separated by semicolons."""
    if isinstance(value, str):
        value = [part for part in value.split(";") if trimmed(part)]
    if not value:
        return Problem("contains no image id.", "Give at least one image id.")
    images: dict[str, None] = {}  # an ordered set
    for part in value:
        if not isinstance(part, str):
            return _wrong_type(part, _USE_TEXT)
        image = trimmed(half_width(part))
        if not IMAGE_ID.fullmatch(image) or len(image) not in _IMAGE_ID_LENGTHS:
            remedy = _USE_IMAGE_IDS
            if comma := _COMMA.search(image):
                is_list = IMAGE_ID.match(trimmed(image[comma.end() :]))
                remedy = (_USE_SEMICOLON if is_list else _USE_DELIMITER).format(comma[0])
            return Problem(f"{quoted(image)} is not a valid image id.", remedy)
        if image in images:
            return Problem(f"{image} is listed twice in one request.", "List each image once.")
        images[image] = None
    return tuple(images)


def bucket(value: str) -> str | Problem:
    """Check the full name of a bucket, APPID included."""
    if _BUCKET.fullmatch(value):
        return value
    # the address itself is not shown: a signed URL holds a secret
    if address := _BUCKET_IN_ADDRESS.fullmatch(value):
        key = (address["key"] or "").strip("/")
        remedy = f"Write {quoted(address['bucket'])} alone"
        remedy += f", and {quoted(key)} as the prefix." if key else "."
        return Problem("is an address, and not the name of a bucket.", remedy)
    if "://" in value:
        remedy = "Use the bucket's name alone, with the APPID last, as in backup-1250000000."
        return Problem("is an address, and not the name of a bucket.", remedy)
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


def prefix(value: str | Sequence[object]) -> str | Problem:
    """Check the prefix of the object keys.

    As in ExportImages, the value may be a list with a prefix for each image. These must be equal.
    """
    if not isinstance(value, str):
        if not all(isinstance(one, str) for one in value):
            return _wrong_type(next(one for one in value if not isinstance(one, str)), _USE_TEXT)
        different = list(dict.fromkeys(trimmed(str(one)) for one in value))
        if len(different) > 1:
            return Problem(
                f"has {len(different)} different prefixes for one request.",
                "Use one prefix, or a request for each image.",
            )
        value = "".join(different)
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


def boolean(value: str | float) -> bool | Problem:
    """Check a boolean, which may be written as true, yes or 1, and as false, no or 0."""
    if not isinstance(value, str):
        return bool(value) if value in {0, 1} else _wrong_type(value, _USE_BOOLEAN)
    result = _BOOLEANS.get(value.lower())
    if result is None:
        return Problem(f"{quoted(value)} is not a boolean.", _USE_BOOLEAN)
    return result


def role_name(value: str) -> str | Problem:
    """Check the name of the role that writes to the bucket."""
    if _ROLE.fullmatch(value):
        return value
    return Problem(
        f"{quoted(value)} is not a valid role name.",
        "Use the name from the CAM console: letters, digits and _.+=,@- up to 128.",
    )


def priority(value: str | float) -> int | Problem:
    """Check a priority; jobs with a larger one are sent first."""
    if isinstance(value, float) and not value.is_integer():
        return Problem(f"{value} is not a valid priority.", _USE_PRIORITY)
    if isinstance(value, str):
        number = _INTEGER.fullmatch(value)
        if number is None:
            return Problem(f"{quoted(value)} is not a valid priority.", _USE_PRIORITY)
        value = int(number[1])
    if MIN_PRIORITY <= value <= MAX_PRIORITY:
        return int(value)
    # the number itself is left out: Python writes none of more than 4300 digits as text
    return Problem("the priority is out of range.", _USE_PRIORITY)


def not_before(value: str | datetime) -> datetime | Problem:
    """Check the earliest time to send, a datetime or ISO 8601 text; return it in UTC.

    A time without an offset is taken as UTC. A date with the year first may be written as
    spreadsheets do, ``2026/11/30 2:00``; other orders are ambiguous.
    """
    given = text = value.isoformat() if isinstance(value, datetime) else value
    if date := _DATE_OF_SPREADSHEET.fullmatch(text):
        year, _, month, day, hour, minute, second, offset = date.groups("")
        text = (
            f"{year}-{month:0>2}-{day:0>2}T{hour or '0':0>2}:{minute or '00'}:{second or '00'}"
            f"{'Z' if offset in {'UTC', 'GMT'} else offset}"
        )
    try:
        moment = datetime.fromisoformat(text)
        return moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC)
    except (ValueError, OverflowError):
        return Problem(f"{quoted(given)} is not a valid timestamp.", _USE_TIMESTAMP)


_RULES: Mapping[str, tuple[Callable[[Any], object], tuple[type, ...], str]] = {
    "image_id": (lambda one: image_ids([one]), (), _USE_TEXT),
    "image_ids": (image_ids, (list, tuple), _USE_TEXT),
    "region": (region, (), _USE_TEXT),
    "bucket": (bucket, (), _USE_TEXT),
    "format": (image_format, (), _USE_TEXT),
    "prefix": (prefix, (list,), _USE_TEXT),
    "only_root_disk": (boolean, (bool, int, float), _USE_BOOLEAN),
    "role_name": (role_name, (), _USE_TEXT),
    "priority": (priority, (int, float), _USE_PRIORITY),
    "not_before": (not_before, (datetime,), _USE_TIMESTAMP),
    "exact_names": (boolean, (bool, int, float), _USE_BOOLEAN),
}
"""For each column or field its rule, which takes a text without outer blanks; the types besides
text that the rule accepts; and the remedy for a value of another type."""

COLUMNS = dict.fromkeys(name for name in _RULES if name != "exact_names")
"""The columns that a manifest may have, as an ordered set."""

_COLUMN_SPELLINGS = {name.replace("_", ""): name for name in COLUMNS} | {
    "bucketname": "bucket",
    "exportformat": "format",
    "filenameprefixlist": "prefix",
    "onlyexportrootdisk": "only_root_disk",
}
"""The columns by their names without separators, and by those of ExportImages."""


@lru_cache(maxsize=256)  # every JSON row repeats the same keys
def column_named(name: str) -> str | None:
    """Return the column that a name stands for, in any case, or None.

    Blanks may surround and separate its words; the names of ExportImages are known too.
    """
    return _COLUMN_SPELLINGS.get(_NOT_IN_A_NAME.sub("", half_width(name[:MAX_SHOWN])).lower())


@lru_cache(maxsize=256)
def is_nearly_a_column(name: str) -> bool:
    """Return whether a name is probably a misspelled column."""
    text = _NOT_IN_A_NAME.sub("", name[:MAX_SHOWN]).lower()
    return bool(difflib.get_close_matches(text, _COLUMN_SPELLINGS, n=1, cutoff=0.8))


def trimmed(text: str) -> str:
    """Return a text without blanks and invisible characters around it."""
    return text.strip(_TRIMMED)


def half_width(text: str) -> str:
    """Replace full-width characters of Chinese input methods with ASCII ones.

    The full-width comma is not replaced.
    """
    return text.translate(_FULL_WIDTH)


def check(field: str, raw: object) -> object:
    """Return the normalized value of a column or field, or a Problem."""
    if isinstance(raw, str):
        return _check_text(field, trimmed(raw))
    rule, types, remedy = _RULES[field]
    # to Python a boolean is an integer
    if isinstance(raw, types) and (bool in types or not isinstance(raw, bool)):
        return rule(raw)
    return _wrong_type(raw, remedy)


# rows share regions, buckets and prefixes: each is checked and stored only once
@lru_cache(maxsize=256)
def _check_text(field: str, text: str) -> object:
    if field != "prefix":  # all others are ASCII
        text = half_width(text)
    if len(text) > 1 and f"{text[0]}{text[-1]}" in _PAIRS_OF_QUOTES:
        return Problem(
            f"{quoted(text)} is in typographic quotes.", 'Use straight quotes ("), or none.'
        )
    return _RULES[field][0](text)


def is_blank(raw: object) -> bool:
    """Return whether a value counts as not given."""
    return raw is None or (isinstance(raw, str) and not trimmed(raw))


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
    near = difflib.get_close_matches(name[:MAX_SHOWN].lower(), COLUMNS, n=1, cutoff=0.5)
    hint = f"Did you mean {near[0]}?" if near else f"Known columns are {', '.join(COLUMNS)}."
    return Problem(f"{quoted(name)} is not a known column.", hint)


def _wrong_type(raw: object, remedy: str) -> Problem:
    name = _TYPE_NAMES.get(type(raw)) or escaped(type(raw).__name__)
    return Problem(f"has the wrong type ({name}).", remedy)
