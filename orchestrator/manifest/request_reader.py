"""Read requests from a manifest or from flags, or report all faults together.

`DecodedText` finds the encoding, and the first line determines the format: CSV, JSON or a list of
ids. CSV, lists and JSON Lines are read line by line, other JSON as a whole. A row that cannot be
parsed is a fault like any other; if the rows after it cannot be trusted either, the manifest is
refused.
"""

from collections.abc import Sequence
from typing import BinaryIO

from orchestrator.errors import ManifestError, RowFault, UsageError
from orchestrator.manifest.column_rules import is_blank
from orchestrator.manifest.csv_reader import CsvReader
from orchestrator.manifest.file_format import (
    check_tccli,
    delimiter_in,
    find_delimiter,
    is_list_of_ids,
    words_of_list,
)
from orchestrator.manifest.json_reader import JsonReader
from orchestrator.manifest.problems import UnreadableError, unreadable
from orchestrator.manifest.request_collector import Flags, Manifest, RequestCollector
from orchestrator.manifest.text_decoding import DecodedText, check_encoding


def read_manifest(
    stream: BinaryIO,
    source: str,
    flags: Flags,
    *,
    skip_invalid: bool = False,
    encoding: str | None = None,
) -> Manifest:
    """Read CSV, JSON or a list of image ids.

    Args:
        stream: read to its end, unless the manifest is refused before; left open.
        source: the manifest's name in messages.
        flags: for what a row leaves out.
        skip_invalid: leave out invalid rows and unknown columns instead of refusing the manifest.
        encoding: of a manifest without a byte order mark; UTF-8 by default.

    Raises:
        ManifestError: a row is invalid, and may not be skipped; or no row is valid; or the
            manifest as a whole cannot be used, as without a header.
        UsageError: a flag's value or the encoding cannot be used.
    """
    collector = RequestCollector(flags, skip_invalid=skip_invalid)
    try:
        _read(DecodedText(stream, encoding), collector)
    except UnreadableError as error:
        faults = (*collector.faults, *error.faults)
        raise ManifestError(source, faults, in_rows=False, invalid=collector.invalid) from None
    except UnicodeError:  # UTF-16 and UTF-32 without a byte order mark, if --encoding names them
        name = check_encoding(encoding or "utf-16")
        remedy = f"Name the order of its bytes: --encoding {name}-le or {name}-be."
        fault = RowFault(1, "", f"is not valid {name}.", remedy)
        raise ManifestError(source, (fault,), in_rows=False) from None
    return collector.manifest(source)


def requests_from_images(
    image_ids: Sequence[str], flags: Flags, *, skip_invalid: bool = False
) -> Manifest:
    """Return a manifest with one request for each ``--image``.

    The number of a fault is the position of its image.

    Raises:
        ManifestError: as for a manifest.
        UsageError: another flag's value cannot be used, or is missing.
    """
    for field in ("region", "bucket"):
        if is_blank(flags.get(field)):
            raise UsageError(f"No {field} is given.", f"Give it with --{field}.")
    collector = RequestCollector(flags, skip_invalid=skip_invalid)
    for number, image_id in enumerate(image_ids, 1):
        collector.add(number, {"image_id": image_id}, "image")
    return collector.manifest("--image")


def _read(text: DecodedText, collector: RequestCollector) -> None:
    """Read all rows of a text; collect their requests and faults.

    Raises:
        UnreadableError: the manifest is empty, or cannot be read any further.
    """
    line, first = text.next_line(1)
    first = first.lstrip("\ufeff")  # the mark of an encoding that was named
    while first.lstrip().startswith("#"):
        line, first = text.next_line(line + 1)
    if not first:
        raise unreadable(1, "the manifest is empty.", "Add a row for each image.")
    check_tccli(line, first)
    if first.lstrip()[0] in "[{":
        JsonReader(text, collector).read(first, line)
    elif is_list_of_ids(first):
        _read_ids(text, first, line, collector)
    else:
        delimiter = delimiter_in(first)
        if delimiter is not None:
            line, first = text.next_line(line + 1)
        CsvReader(text, collector).read(first, line, delimiter or find_delimiter(first))


def _read_ids(text: DecodedText, first: str, line: int, collector: RequestCollector) -> None:
    """Read a text in which each line has the id of an image, or several."""
    for number, words in enumerate(text.lines(first, line), line):
        if fault := text.fault(number, words):
            collector.reject(fault)
            continue
        for image in words_of_list(words):
            collector.add(number, {"image_ids" if ";" in image else "image_id": image})
