"""Decode a manifest: find its encoding, and name files that are no text."""

import codecs
import difflib
import encodings.aliases
import io
import re
from collections.abc import Iterator
from typing import Any, BinaryIO

from orchestrator.errors import RowFault, UsageError
from orchestrator.manifest.column_rules import trimmed
from orchestrator.manifest.file_format import DELIMITERS
from orchestrator.manifest.problems import unreadable

MAX_LINE = 2**20
"""Maximum characters of a line, so that a disk image given by mistake does not fill the memory."""

_BLANK = f" \r\n{DELIMITERS}"
"""What a line may consist of and yet be empty: spreadsheets separate empty cells too."""

_HEAD = 4096
"""Bytes by which the kind of a file is recognized."""

_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # begins like UTF-16 LE
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)

_OTHER_FILES = (
    (b"\x1f\x8b", "a gzip file"),
    (b"BZh", "a bzip2 file"),
    (b"\xfd7zXZ\0", "an xz file"),
    (b"\x28\xb5\x2f\xfd", "a zstd file"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z file"),
    (b"PK\x03\x04", "a zip file"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an Excel workbook (.xls)"),
    (b"%PDF", "a PDF file"),
    (b"{\\rtf", "an RTF file"),
    (b"PAR1", "a Parquet file"),
    (b"SQLite format 3\0", "an SQLite database"),
    (b"\x89PNG", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"QFI\xfb", "a QCOW2 disk image"),
    (b"KDMV", "a VMDK disk image"),
    (b"conectix", "a VHD disk image"),
    (b"bplist", "a property list"),
    (b"<?xml", "an XML file"),
    (b"<!DOCTYPE", "an HTML page"),
    (b"<!doctype", "an HTML page"),
    (b"<html", "an HTML page"),
)
"""How files begin that people take for a manifest."""

_ZIP_CONTENTS = (
    (b"xl/", "an Excel workbook (.xlsx)"),
    (b"[Content_Types].xml", "an Excel workbook (.xlsx)"),
    (b"oasis.opendocument.spreadsheet", "a spreadsheet (.ods)"),
    (b".iwa", "a Numbers spreadsheet"),
)

_SAVE_AS_CSV = 'Save it as CSV (in Excel: "CSV UTF-8").'
_UNDECODABLE = "\udcff"
_NOT_TEXT = re.compile(f"[\0{_UNDECODABLE}]")

# a byte that cannot be decoded becomes a character that no text has, so that only its row is
# invalid
codecs.register_error("undecodable", lambda error: (_UNDECODABLE, getattr(error, "end", 0)))


def check_encoding(name: str) -> str:
    """Return Python's name of a text encoding.

    Raises:
        UsageError: there is no such encoding; the remedy names the nearest.
    """
    if _decodes_text(name):
        return codecs.lookup(name).name
    known = {*encodings.aliases.aliases, *encodings.aliases.aliases.values()}
    text = name.lower().replace("-", "_").replace(" ", "_")
    near = filter(_decodes_text, difflib.get_close_matches(text, sorted(known)))
    hint = f"Did you mean {found}?" if (found := next(near, None)) else "Use gb18030 or utf-16."
    raise UsageError(f"--encoding: {name!r} is not a text encoding.", hint)


def _decodes_text(name: str) -> bool:
    try:
        decoded: object = codecs.getincrementaldecoder(name)(errors="undecodable").decode(b"a")
    except Exception:  # noqa: BLE001 - codecs that decode no text raise errors of every kind
        return False
    return isinstance(decoded, str)


class DecodedText(io.TextIOWrapper):
    """The text of a manifest; line ends are those of Unix.

    Args:
        stream: read from here on; left open.
        encoding: as the user has named it; a byte order mark has precedence.

    Raises:
        UnreadableError: the file is no text, or its encoding is not certain.
        UsageError: there is no such encoding.
    """

    def __init__(self, stream: BinaryIO, encoding: str | None) -> None:
        self._is_named = encoding is not None
        named = check_encoding(encoding) if encoding is not None else "utf-8"
        head = stream.read(_HEAD)
        marked = next((name for mark, name in _BYTE_ORDER_MARKS if head.startswith(mark)), None)
        if marked == "utf-32" and not self._is_named:
            raise unreadable(1, "the manifest is written in UTF-32.", "Save it as UTF-8.")
        if marked is None:
            _check_kind(head, is_named=named != "utf-8" and self._is_named)
        source = io.BufferedReader(_Chained(head, stream), 2**16)
        super().__init__(source, encoding=marked or named, errors="undecodable")

    def next_line(self, line: int, blank: str | None = _BLANK) -> tuple[int, str]:
        """Return the next line that has other characters than these, and its number.

        At the end the line is empty.

        Args:
            line: the number of the next line.
        """
        found = self.readline(MAX_LINE + 1)
        while found and not trimmed(found.strip(blank)):
            line, found = line + 1, self.readline(MAX_LINE + 1)
        return line, found

    def lines(self, first: str, line: int) -> Iterator[str]:
        """Yield a line and all that follow it.

        Args:
            line: the number of the first.

        Raises:
            UnreadableError: a line is longer than `MAX_LINE`.
        """
        while first:
            if len(first) > MAX_LINE:
                reason = f"the line is longer than {MAX_LINE} characters."
                raise unreadable(line, reason, "Check that this file is a manifest.")
            yield first
            line, first = line + 1, self.readline(MAX_LINE + 1)

    def fault(self, line: int, text: str) -> RowFault | None:
        """Return a fault if a text has NUL characters or bytes that cannot be decoded.

        Args:
            line: number of the text's first line.
        """
        found = _NOT_TEXT.search(text)
        if found is None:
            return None
        line += text.count("\n", 0, found.start())
        if found[0] == "\0":
            return RowFault(line, "", "contains NUL characters.", "Save it as plain UTF-8 text.")
        encoding = "UTF-8" if self.encoding.startswith("utf-8") else self.encoding
        remedy = "Save the manifest as UTF-8"
        if self._is_named:
            return RowFault(line, "", f"is not valid {encoding}.", f"{remedy}.")
        remedy += ' (in Excel: "CSV UTF-8"), or name its encoding, as Chinese: --encoding gb18030.'
        return RowFault(line, "", f"is not valid {encoding}.", remedy)


class _Chained(io.RawIOBase):
    """The head of a stream that was read already, and then its rest."""

    def __init__(self, head: bytes, rest: BinaryIO) -> None:
        self._head = head
        self._rest = rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._head[: len(buffer)] or self._rest.read(len(buffer))
        self._head = self._head[len(data) :]
        buffer[: len(data)] = data
        return len(data)


def _refuse_utf8(head: bytes) -> None:
    """Raise an error if a text is UTF-8 and not only ASCII.

    Other encodings would read it as other characters. Text in another encoding is hardly ever valid
    UTF-8, unless all of it is ASCII.
    """
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head)  # the last character may be cut
    except UnicodeDecodeError:
        return
    if not text.isascii():
        raise unreadable(1, "the manifest is UTF-8.", "Leave out --encoding.")


def _check_kind(head: bytes, *, is_named: bool) -> None:
    """Raise an error if the start of a file shows that it cannot be decoded.

    The file may be of a known kind that is not text. It may be UTF-16 or UTF-32 without a byte
    order mark, or have NUL characters in its first line. It may be UTF-8 although another encoding
    is named.

    Args:
        is_named: whether the user has named an encoding other than UTF-8.
    """
    kind = next((kind for start, kind in _OTHER_FILES if head.lstrip().startswith(start)), None)
    if kind == "a zip file":
        kind = next((inner for part, inner in _ZIP_CONTENTS if part in head), kind)
    if kind is not None:
        raise unreadable(1, f"the manifest seems to be {kind}.", _SAVE_AS_CSV)
    if b"\0" not in head:
        if is_named:
            _refuse_utf8(head)
        return
    if is_named:
        return
    is_nul = [byte == 0 for byte in head[:16]]
    for encoding, pattern in (
        ("UTF-32-LE", [False, True, True, True]),
        ("UTF-32-BE", [True, True, True, False]),
        ("UTF-16-LE", [False, True]),
        ("UTF-16-BE", [True, False]),
    ):
        if len(is_nul) >= 4 and is_nul == (pattern * 16)[: len(is_nul)]:
            reason = f"the manifest seems to be {encoding} without a byte order mark."
            raise unreadable(1, reason, f"Save it as UTF-8, or use --encoding {encoding.lower()}.")
    if 0 in head.split(b"\n", 1)[0]:
        reason = "contains NUL characters: the manifest is not text, or text in UTF-16."
        raise unreadable(1, reason, _SAVE_AS_CSV)
