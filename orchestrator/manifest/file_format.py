"""Recognize the format of a text: its delimiter, a list of ids, and what is no manifest at all."""

import csv
import re
from collections.abc import Iterator, Sequence
from itertools import islice

from orchestrator.manifest.column_rules import (
    IMAGE_ID,
    column_named,
    half_width,
    trimmed,
)
from orchestrator.manifest.problems import UnreadableError, escaped, quoted, unreadable

DELIMITERS = ",;\t|\uff0c\uff1b"
"""The last two are the full-width comma and semicolon."""

_MAX_TEXT_BEFORE_JSON = 1000
"""Lines that are searched for the beginning of JSON."""

_DELIMITER_LINE = re.compile(rf'"?sep=([{DELIMITERS}])"?\s*', re.IGNORECASE)
_IDS = re.compile(rf"{IMAGE_ID.pattern}(?:;{IMAGE_ID.pattern})*")
_TCCLI_ERROR = re.compile(r"\[TencentCloudSDKException\] code: ?(\S+)")
_TCCLI_TABLE = re.compile(r"[-+|]{5,}|\|? *DescribeImages *\|?|IMAGESET\b.*|\S+\t[0-9]+")
_TERRAFORM_TEXT = re.compile(r"\w+ = .*")


def check_tccli(line: int, first: str) -> None:
    """Raise an error if a text begins with an error message of tccli.

    ``2>&1`` writes such a message to the file.
    """
    if error := _TCCLI_ERROR.match(first):
        reason = f"the file is an error of tccli: {escaped(error[1])}."
        raise unreadable(line, reason, "Solve it, and call tccli again.")


def delimiter_in(line: str) -> str | None:
    """Return the delimiter that a line like ``sep=;`` names.

    It applies to the lines below. Return ``None`` if the line names no delimiter.
    """
    found = _DELIMITER_LINE.fullmatch(line)
    return found[1] if found else None


def find_delimiter(header: str) -> str:
    """Return the delimiter that splits a header into the most known columns."""

    def count(delimiter: str) -> int:
        rows = csv.reader([header], skipinitialspace=True, delimiter=delimiter)
        try:
            return sum(column_named(name) is not None for name in next(rows))
        except csv.Error:
            return 0

    return max(DELIMITERS, key=count)


def words_of_list(line: str) -> list[str]:
    """Return the words of a line, without quotes and without a comment at its end.

    Ids with a semicolon between them are one word: they belong to one request.
    """
    text = re.sub("[\"']", "", half_width(line).partition("#")[0])
    text = ";".join(trimmed(part) for part in text.split(";"))
    words = re.split(r"[\s,\uff0c\u3001]+", text)
    return [word for word in (trimmed(word).strip(";") for word in words) if word]


def is_list_of_ids(line: str) -> bool:
    """Return whether a line has ids of images, and nothing else."""
    words = words_of_list(line)
    return bool(words) and all(map(_IDS.fullmatch, words))


def has_several_lists(columns: Sequence[str | None], cells: Sequence[str]) -> bool:
    """Return whether several cells of a row have different image ids.

    This happens when a delimiter splits a list. Unknown columns count only if there is a column
    ``image_ids``: tables of tools may have ids of other images.
    """
    has_lists = "image_ids" in columns
    left_out = "image_id" if has_lists else None  # of these two only one may be given anyway
    named = (cell for column, cell in zip(columns, cells, strict=False) if column != left_out)
    cells = [trimmed(half_width(cell)) for cell in named]
    return len({cell for cell in cells if _IDS.fullmatch(cell)}) > 1


def not_a_header(line: int, names: Sequence[str], lines: Iterator[str]) -> UnreadableError:
    """Return the error for a line that is not a valid header.

    The error says what the file may be instead.

    Args:
        names: the cells of the line.
        lines: those that follow.
    """
    text = " ".join(filter(None, names))
    if _TCCLI_TABLE.fullmatch(names[0]):
        reason = "the manifest seems to be a table or text of tccli."
        return unreadable(line, reason, "Use tccli with --output json.")
    if _TERRAFORM_TEXT.fullmatch(text):
        reason = "the manifest seems to be text of terraform output."
        return unreadable(line, reason, "Use terraform output -json and the output's name.")
    if IMAGE_ID.search(text):
        reason = "the header is missing: this line contains an image id."
        return unreadable(line, reason, "Put a header above it, as in image_id,region,bucket.")
    if column_named(re.split(rf"[{DELIMITERS}]", text)[0]):
        reason = "each line is in quotes as a whole."
        return unreadable(line, reason, "Remove the quotes around the lines.")
    for number, later in enumerate(islice(lines, _MAX_TEXT_BEFORE_JSON), line + 1):
        if later.lstrip()[:1] in {"{", "["}:
            reason = f"text is above the JSON: {quoted(text)}."
            remedy = f"Remove what is above line {number}; tccli writes it with --waiter."
            return unreadable(line, reason, remedy)
    reason = f"the header names no known column: {quoted(text)}."
    return unreadable(line, reason, "Begin with the columns, as in image_id,region,bucket.")
