"""Manifests: what is read, what is refused, and which message follows."""

import json
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from orchestrator.errors import ManifestError, RowFault, UsageError
from orchestrator.manifest import json_reader
from orchestrator.manifest.export_request import ExportRequest
from orchestrator.manifest.request_collector import Flags, Manifest
from orchestrator.manifest.request_reader import read_manifest, requests_from_images
from orchestrator.model import ImageFormat

FLAGS = {"region": "ap-singapore", "bucket": "backup-1250000000"}


def request(*image_ids: str, **others: object) -> ExportRequest:
    """Return a request as the flags above complete it."""
    values: dict[str, object] = {"region": FLAGS["region"], "bucket": FLAGS["bucket"]} | others
    return ExportRequest(image_ids, **values)  # type: ignore[arg-type]  # the tests name true fields


class Reader:
    """Writes manifests to a file and reads them."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "manifest"

    def read(
        self,
        content: str | bytes,
        flags: Flags = FLAGS,
        *,
        skip_invalid: bool = False,
        encoding: str | None = None,
    ) -> Manifest:
        """Return the requests of a manifest."""
        self._path.write_bytes(content if isinstance(content, bytes) else content.encode())
        with self._path.open("rb") as stream:
            manifest = read_manifest(
                stream, "manifest", flags, skip_invalid=skip_invalid, encoding=encoding
            )
            assert not stream.closed
        return manifest

    def faults(
        self, content: str | bytes, flags: Flags = FLAGS, *, skip_invalid: bool = False
    ) -> tuple[RowFault, ...]:
        """Return the faults of a manifest that is refused."""
        with pytest.raises(ManifestError) as caught:
            self.read(content, flags, skip_invalid=skip_invalid)
        assert all(fault.remedy and str(fault).isprintable() for fault in caught.value.faults)
        return caught.value.faults

    def fault(self, content: str | bytes, flags: Flags = FLAGS) -> str:
        """Return the only fault of a manifest that is refused, as it is printed."""
        (fault,) = self.faults(content, flags)
        return str(fault)


@pytest.fixture
def manifest(tmp_path: Path) -> Reader:
    """Return a reader of manifests."""
    return Reader(tmp_path)


def test_every_column_is_read(manifest: Reader) -> None:
    """The columns may have any order, and cells may have blanks around them."""
    read = manifest.read(
        "not_before,priority,role_name,only_root_disk,prefix,format,bucket,region,image_id\n"
        "2026-12-31T23:00:00+01:00, -5 ,Exporter,yes, night/a ,qcow2,b-1250000001,eu-frankfurt,"
        " img-1a2b3c4d \n"
    )
    assert read.requests == (
        ExportRequest(
            image_ids=("img-1a2b3c4d",),
            region="eu-frankfurt",
            bucket="b-1250000001",
            format=ImageFormat.QCOW2,
            prefix="night/a",
            only_root_disk=True,
            role_name="Exporter",
            priority=-5,
            not_before=datetime(2026, 12, 31, 22, tzinfo=UTC),
        ),
    )


def test_flags_fill_in_what_a_row_leaves_out(manifest: Reader) -> None:
    """An empty cell and a missing column get the value of the flag.

    Other cells keep their own value.
    """
    flags = {
        "region": "ap-tokyo",
        "bucket": "backup-1250000000",
        "format": "vhd",
        "prefix": "p",
        "only_root_disk": True,
        "role_name": "r",
        "priority": 3,
        "not_before": "2026-01-01",
        "exact_names": True,
    }
    read = manifest.read("image_id,format,only_root_disk\nimg-aaaa,,\nimg-bbbb,RAW,no\n", flags)
    common = {
        "region": "ap-tokyo",
        "prefix": "p",
        "role_name": "r",
        "priority": 3,
        "not_before": datetime(2026, 1, 1, tzinfo=UTC),
        "exact_names": True,
    }
    assert read.requests == (
        request("img-aaaa", format=ImageFormat.VHD, only_root_disk=True, **common),
        request("img-bbbb", format=ImageFormat.RAW, only_root_disk=False, **common),
    )


@pytest.mark.parametrize(
    "content",
    [
        'image_ids\n"img-aaaa; img-bbbb;"\n',
        '{"image_ids": ["img-aaaa", "img-bbbb"]}',
        '[{"image_id": null, "image_ids": ["img-aaaa", "img-bbbb"]}]',
    ],
)
def test_several_images_share_a_request(manifest: Reader, content: str) -> None:
    """Semicolons in CSV or a list in JSON put several images into one request."""
    assert manifest.read(content).requests == (request("img-aaaa", "img-bbbb"),)


@pytest.mark.parametrize(
    "content",
    [
        "image_ids\nimg-aaaa；img-bbbb\n",
        "image_ids\nｉｍｇ－ａａａａ；　img-bbbb；\n",
        "ｉｍａｇｅ＿ｉｄｓ，prefix\nimg-aaaa；img-bbbb，\n",
        'image_ids；prefix\n"img-aaaa；img-bbbb"；\n',
        "img-aaaa；img-bbbb\n",
        '["img-aaaa；img-bbbb"]',
        '{"image_ids": "img-aaaa；img-bbbb"}',
        '{"image_ids": ["img-aaaa", "ｉｍｇ-bbbb　"]}',
    ],
)
def test_full_width_characters_are_read_as_ascii(manifest: Reader, content: str) -> None:
    """Chinese input methods type them, as separators too."""
    assert manifest.read(content).requests == (request("img-aaaa", "img-bbbb"),)


@pytest.mark.parametrize("separator", ["，", "、", "　", "\n", "＃ one\n"])
def test_full_width_characters_may_separate_the_ids_of_a_list(
    manifest: Reader, separator: str
) -> None:
    """They mean what a comma or a blank means there: a request for each id."""
    read = manifest.read(f"img-aaaa{separator}ｉｍｇ－ｂｂｂｂ\n")
    assert read.requests == (request("img-aaaa"), request("img-bbbb"))


@pytest.mark.parametrize(
    "content",
    [
        "image_id\nimg-aaaa\nimg-bbbb\n",
        "image_id\r\nimg-aaaa\r\nimg-bbbb",
        "image_id\rimg-aaaa\rimg-bbbb\r",
        b"\xef\xbb\xbfimage_id\nimg-aaaa\nimg-bbbb\n",
        "\n \nimage_id,prefix\n\nimg-aaaa,\n,\n\t\nimg-bbbb,\n\n",
        '"image_id"\n"img-aaaa"\n"img-bbbb"\n',
        '{"image_id": "img-aaaa"}\n\n{"image_id": "img-bbbb"}\n',
        b'\xef\xbb\xbf \n [\n{"image_id": "img-aaaa"},\n{"image_id": "img-bbbb"}]\n',
        '[{"image_id": "img-aaaa"},{"image_id": "img-bbbb"}]',
    ],
)
def test_rows_may_be_written_in_many_ways(manifest: Reader, content: str | bytes) -> None:
    """Byte order marks, line ends, blank lines and quotes do not change the rows.

    The format does not change them either.
    """
    read = manifest.read(content)
    assert read.requests == (request("img-aaaa"), request("img-bbbb"))


def test_lines_are_counted_as_an_editor_does(manifest: Reader) -> None:
    """Blank lines, quoted line breaks and every kind of line end count."""
    faults = manifest.faults('\n\nimage_id,prefix\r\n\rbad1,x\r\n"img-aaaa","a\nb"\n\nbad2,"x"\n')
    assert [(fault.number, fault.column) for fault in faults] == [
        (5, "image_id"),
        (6, "prefix"),
        (9, "image_id"),
    ]


@pytest.mark.parametrize(
    "content",
    ["", "\n \r\n", b"\xef\xbb\xbf", ",,\n", "image_id\n\n", "image_id,,\n,,\n", "[ ]", "[]\n"],
)
def test_manifest_without_rows_is_refused(manifest: Reader, content: str | bytes) -> None:
    """A manifest without rows is refused, also with --skip-invalid.

    It may be an empty file, a header alone or an empty array.
    """
    (fault,) = manifest.faults(content, skip_invalid=True)
    assert "Add a row for each image." in str(fault)


AFTER_COMMA = (
    ("line 1: is not JSON: Illegal trailing comma", "line 4: is not JSON: Illegal trailing comma")
    if sys.version_info >= (3, 13)
    else ("line 2: is not JSON: Expecting value (column 1).", "line 5: is not JSON: ")
)
"""What Python says about a comma after the last entry: the comma or what follows it."""


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("img-1a2b3c4d,ap-tokyo\n", "line 1: the header is missing: this line contains an ima"),
        ("\nprefix\nx\n", "line 2, image_ids: no image is given."),
        ("image_id,region,region\n", "line 1, region: the column is listed twice"),
        ("sep=;\n", "line 2: the header names no column."),
        ("owner,note\nme,x\n", "line 1: the header names no known column: 'owner note'."),
        ('"image_id,region"\n"img-aaaa,ap-tokyo"\n', "line 1: each line is in quotes as a whole."),
        (b"image_id,\xff\nimg-aaaa,\n", "line 1: is not valid UTF-8."),
        (b"x" * 3_000_000, "line 1: the line is longer than 1048576 characters."),
        (
            'image_id,prefix\nimg-aaaa,"x\nimg-bbbb,y\n',
            "line 2: is not CSV: unexpected end of data",
        ),
        ('"image_id\n', "line 1: is not CSV: unexpected end of data."),
        ('[{"image_id": "img-aaaa"},\n]', AFTER_COMMA[0]),
        ('[{"image_id": "img-aaaa"}\n{}]', "line 2: is not JSON: Expecting ',' delimiter"),
        ('\n[\n{"image_id":\n"img-aaaa",\n}]', AFTER_COMMA[1]),
        ('[{"image_id": "img-aaaa"}]\n\n}', "line 3: is not JSON: Expecting value (column 1)."),
        ('[{"image_id": "img-aaaa"}', "line 1: is not JSON: Expecting ',' delimiter"),
        (b'[{"image_id": "img-aaaa"},\n{"image_id": "\xff"}]', "line 2: is not valid UTF-8."),
        ("[" * 100_000, "line 1: is not JSON: it is nested too deeply."),
        ("[" + "9" * 5000 + "]", "line 1: is not JSON: a number has too many digits."),
    ],
)
def test_manifest_is_refused_if_later_rows_cannot_be_trusted(
    manifest: Reader, content: str | bytes, expected: str
) -> None:
    """No row is taken, not even with --skip-invalid."""
    faults = manifest.faults(content, skip_invalid=True)
    assert str(faults[-1]).startswith(expected)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("image_id\nimg-aaaa,x\n", "line 2: has 2 cells, but the header has 1 column."),
        (",image_id\n0,img-aaaa\n", "line 2: has a value in a column without a name."),
        ("img-aaaa\nweb\n", "line 2, image_id: 'web' is not a valid image id."),
        (b"image_id\n\nimg-\xff\n", "line 3: is not valid UTF-8."),
        (b"image_id\nimg-\x00aaaa\n", "line 2: contains NUL characters"),
        ("image_id\n" + "x" * 200_000 + "\n", "line 2: is not CSV: field larger than field limit"),
        ('image_id\n"img"-aaaa\n', "line 2: is not CSV: ',' expected after '\"'."),
        ('image_id\tregion\n"img"-aaaa\t\n', r"line 2: is not CSV: '\t' expected after '" + '"'),
        ('{"image_id": "img-aaaa",}', "line 1: is not JSON: "),
        ('{"image_id": \n', "line 1: is not JSON: "),
        ('{"image_id": "img-aaaa"} x', "line 1: is not JSON: Expecting value (column 26)."),
        (
            '\n{"image_id": "img-aaaa", "image_id": "img-bbbb"}',
            "line 2, image_id: the key is given",
        ),
        (b'{"image_id": "img-\xff"}', "line 1: is not valid UTF-8."),
        ('{"a":' + "[" * 100_000, "line 1: is not JSON: it is nested too deeply."),
        ("[\n5]", "object 1: is not a JSON object."),
        ('[{"image_id": "img-aaaa"}, "x"]', "object 2, image_id: 'x' is not a valid image id."),
        ('[["img-aaaa", 5]]', "object 1: is not a JSON object."),
        (
            '{"image_id": "img-aaaa", "region": "ap-tokyo", "Region": "y"}',
            "line 1, Region: region is given twice.",
        ),
        (
            '{"image_id": "img-aaaa", "bucket": 5}',
            "line 1, bucket: has the wrong type (a number). ",
        ),
        ('{"ImageIds": ["img-aaaa"], "DryRun": true}', "line 1, DryRun: a job is no dry run."),
        ('{"ImageId": "img-aaaa", "Prefx": "x"}', "line 1, Prefx: 'Prefx' is not a known column."),
        ('[{"region": "x", "a": 1, "region": "y"}]', "object 1, region: the key is given twice."),
        (
            '{"image_id": "img-aaaa", "priority": 1e999}',
            "line 1, priority: inf is not a valid priority.",
        ),
        (
            '{"image_id": "img-aaaa", "priority": NaN}',
            "line 1, priority: nan is not a valid priority.",
        ),
        (
            '{"image_id": "img-aaaa", "priority": ' + "9" * 4000 + "}",
            "line 1, priority: the priority is out of range.",
        ),
        (
            '{"image_id": "img-aaaa", "priority": ' + "9" * 5000 + "}",
            "line 1: is not JSON: a number has too many digits.",
        ),
        ("{}", "line 1, image_ids: no image is given."),
    ],
)
def test_invalid_row_is_reported_with_its_position(
    manifest: Reader, content: str | bytes, expected: str
) -> None:
    """The message begins with the line, or with the object's number in its array."""
    assert manifest.fault(content).startswith(expected)


@pytest.mark.parametrize("content", ["image_id\nbad\n", "{}\n", '[{"image_id": "bad"}]'])
def test_manifest_without_a_valid_row_is_refused(manifest: Reader, content: str) -> None:
    """A manifest without a valid row is refused, even with --skip-invalid.

    Nothing is left to enqueue.
    """
    with pytest.raises(ManifestError) as caught:
        manifest.read(content, skip_invalid=True)
    assert len(caught.value.faults) == 1
    assert "--skip-invalid" not in caught.value.remedy


@pytest.mark.parametrize(
    "content",
    [
        b"image_id\nimg-\xff\nimg-aaaa\n",
        b'image_id\n"img"-bbbb\nimg-aaaa\n',
        b'{"image_id": \n{"image_id": "img-aaaa"}\n',
        b'{"image_id": "\xff"}\n{"image_id": "img-aaaa"}\n',
        b'[5, {"image_id": "img-aaaa"}]',
        b'[{"image_id": "img-bbbb", "image_id": "img-cccc"}, {"image_id": "img-aaaa"}]',
    ],
)
def test_invalid_row_alone_is_skipped(manifest: Reader, content: bytes) -> None:
    """With --skip-invalid a row that cannot be parsed does not affect the next one."""
    read = manifest.read(content, skip_invalid=True)
    assert read.requests == (request("img-aaaa"),)
    assert (len(read.faults), read.invalid) == (1, 1)


def test_too_long_array_is_refused(manifest: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    """The length of a JSON array is limited, because it is read as a whole.

    The remedy is JSON Lines.
    """
    content = '[{"image_id": "img-aaaa"}]'
    monkeypatch.setattr(json_reader, "MAX_DOCUMENT", len(content))
    assert manifest.read(content).requests == (request("img-aaaa"),)
    fault = manifest.fault(content + " ")
    assert fault.startswith("line 1: the JSON is longer than 26 characters. Write one object on")


def test_all_faults_are_reported_at_once(manifest: Reader) -> None:
    """The error contains every unknown column and every invalid cell of every row."""
    faults = manifest.faults("image_id,regin,format\nbad,,png\nimg-aaaa,,\nimg-aaaa,,tar\n")
    assert [(fault.number, fault.column) for fault in faults] == [
        (1, "regin"),
        (2, "image_id"),
        (2, "format"),
        (4, "format"),
    ]


def test_unknown_column_suggests_the_nearest_known_one(manifest: Reader) -> None:
    """The suggestion is the same for a header and for an object."""
    assert manifest.fault("image_id,bucket_nam\nimg-aaaa,x\n").endswith("Did you mean bucket?")
    fault = manifest.fault('{"image_id": "img-aaaa"}\n{"image_id": "img-bbbb", "regin": "x"}')
    assert fault == "line 2, regin: 'regin' is not a known column. Did you mean region?"
    assert "Known columns are image_id, " in manifest.fault("image_id,zzz\nimg-aaaa,\n")


def test_missing_column_is_reported_once_with_the_header(manifest: Reader) -> None:
    """Without a column and a flag no row can have a region, so the rows are not read."""
    faults = manifest.faults("image_id,regoin\nimg-aaaa,\nimg-bbbb,\n", {})
    assert [(fault.number, fault.column) for fault in faults] == [
        (1, "regoin"),
        (1, "region"),
        (1, "bucket"),
    ]
    assert "give --bucket" in faults[2].remedy


def test_row_without_a_region_is_reported(manifest: Reader) -> None:
    """An empty cell is a fault of its row if there is no flag."""
    flags = {"bucket": "backup-1250000000"}
    assert manifest.fault("image_id,region\nimg-aaaa,\n", flags).startswith("line 2, region: no")
    assert manifest.fault('{"image_id": "img-aaaa"}', flags).startswith("line 1, region: no")


def test_row_uses_one_of_the_two_image_columns(manifest: Reader) -> None:
    """Both columns may exist, but a row may not use both."""
    content = "image_id,image_ids\nimg-aaaa,\n,img-bbbb;img-cccc\nimg-dddd,img-eeee\n,\n"
    assert manifest.fault(content).startswith("line 4, image_id: image_id and image_ids are both")


REMOVE = "Remove one of the two; with --skip-invalid the first is taken."


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("img-aaaa\nimg-bbbb\nimg-aaaa\n", "line 3: repeats img-aaaa of line 1."),
        ("img-aaaa\timg-aaaa\n", "line 1: repeats img-aaaa of line 1."),
        ('["img-aaaa", "img-aaaa"]', "object 2: repeats img-aaaa of object 1."),
        ('"img-aaaa"\n"img-aaaa"\n', "line 2: repeats img-aaaa of line 1."),
    ],
)
def test_repeated_id_of_a_list_is_named(manifest: Reader, content: str, expected: str) -> None:
    """The error names the repeated id of a list.

    Ids of a list may share a line, so the line alone would not say which is repeated.
    """
    assert manifest.fault(content) == f"{expected} {REMOVE}"
    assert manifest.read(content, skip_invalid=True).requests[0] == request("img-aaaa")


def test_repeated_row_names_the_first_one(manifest: Reader) -> None:
    """Format, prefix, disks and bucket distinguish two exports; priority does not."""
    faults = manifest.faults(
        "image_ids,prefix,format,only_root_disk,bucket,priority\n"
        "img-aaaa;img-bbbb,p,RAW,no,,1\n"
        "img-bbbb;img-aaaa,p,raw,0,backup-1250000000,2\n"
        "img-aaaa;img-bbbb,q,RAW,no,,1\n"
        "img-aaaa;img-bbbb,p,VHD,no,,1\n"
        "img-aaaa;img-bbbb,p,RAW,yes,,1\n"
        "img-aaaa;img-bbbb,p,RAW,no,other-1250000000,1\n"
        "img-aaaa,p,RAW,no,,1\n"
        "img-aaaa,p,RAW,no,,1\n"
    )
    assert [str(fault) for fault in faults] == [
        f"line 3: repeats img-bbbb;img-aaaa of line 2. {REMOVE}",
        f"line 9: repeats img-aaaa of line 8. {REMOVE}",
    ]
    assert [fault.repeats for fault in faults] == [2, 8]


def test_objects_of_an_array_are_numbered(manifest: Reader) -> None:
    """Objects may share a line, so a fault names the object and not the line."""
    content = json.dumps([{"image_id": name} for name in ("img-aaaa", "bad", "img-aaaa")])
    faults = manifest.faults(content)
    assert str(faults[0]).startswith("object 2, image_id: 'bad' is not a valid image id.")
    assert str(faults[1]).startswith("object 3: repeats img-aaaa of object 1.")


def test_skip_invalid_takes_the_valid_rows_and_reports_the_others(manifest: Reader) -> None:
    """Valid rows are read, invalid rows counted and unknown columns listed.

    Of two equal rows, the first is read.
    """
    read = manifest.read(
        'image_id,owner,\n"img-aaaa",me,\nbad,,\nimg-bbbb,,x\nimg-aaaa,,\n"img"x,,\nimg-cccc,,\n',
        skip_invalid=True,
    )
    assert read.requests == (request("img-aaaa"), request("img-cccc"))
    assert [fault.number for fault in read.faults] == [3, 4, 5, 6]
    assert read.invalid == 4
    assert read.ignored_columns == ("owner",)


def test_skip_invalid_ignores_unknown_keys(manifest: Reader) -> None:
    """An object with an unknown key is taken without it."""
    content = '{"image_id": "img-aaaa", "a": 1}\n{"image_id": "img-bbbb", "b": [], "a": {}}\nx\n'
    read = manifest.read(content, skip_invalid=True)
    assert read.requests == (request("img-aaaa"), request("img-bbbb"))
    assert read.ignored_columns == ("a", "b")
    assert [fault.number for fault in read.faults] == [3]


@pytest.mark.parametrize(
    "content",
    [
        (
            "ImageId,Bucket Name,exportFormat,OnlyExportRootDisk,FileNamePrefixList\n"
            "img-aaaa,b-1250000001,qcow2,TRUE,x\n"
        ),
        (
            "Image ID;BUCKET;Format;only root disk;\u200bprefix\u00a0\n"
            "img-aaaa;b-1250000001;qcow2;1;x\n"
        ),
        (
            '{"ImageIds": ["img-aaaa"], "BucketName": "b-1250000001", "ExportFormat": "QCOW2", '
            '"OnlyExportRootDisk": true, "FileNamePrefixList": ["x"], "DryRun": false, '
            '"RoleName": ""}'
        ),
    ],
)
def test_columns_may_have_the_names_of_the_vendor(manifest: Reader, content: str) -> None:
    """Columns may have the names of ExportImages; case and blanks do not matter."""
    read = manifest.read(content, skip_invalid=True)
    others = {"format": "QCOW2", "only_root_disk": True, "prefix": "x"}
    assert read == Manifest((request("img-aaaa", bucket="b-1250000001", **others),))


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("above", ["", "sep={}\n", '"sep={}"\r\n'])
def test_spreadsheets_choose_the_delimiter(manifest: Reader, delimiter: str, above: str) -> None:
    """Empty and missing cells at the end of a row, and empty rows, change nothing."""
    rows = "image_ids,region,,\n,,,\n'img-aaaa;img-bbbb',ap-tokyo,,\nimg-cccc\nimg-dddd,,,,,\n"
    rows = rows.replace(",", delimiter).replace("'", '"')
    assert manifest.read(above.format(delimiter) + rows).requests == (
        request("img-aaaa", "img-bbbb", region="ap-tokyo"),
        request("img-cccc"),
        request("img-dddd"),
    )


@pytest.mark.parametrize(
    "content",
    [
        "img-aaaa\nimg-bbbb\n",
        "# tonight\n\nimg-aaaa  # web\n\n img-bbbb\u00a0\n",
        "img-aaaa\rimg-bbbb\r",
        "img-aaaa\timg-bbbb",
        "img-aaaa, img-bbbb,\n",
        '"img-aaaa"\n"img-bbbb"\n',
        '["img-aaaa", "img-bbbb"]',
        '[\n  "img-aaaa",\n  "img-bbbb"\n]\n',
        '["img-aaaa"]\n["img-bbbb"]\n',
        "img-aaaa\r\nimg-bbbb\r\n".encode("utf-16"),
    ],
)
def test_a_list_of_ids_needs_no_header(manifest: Reader, content: str | bytes) -> None:
    """Each id becomes a request, as text and as JSON."""
    assert manifest.read(content).requests == (request("img-aaaa"), request("img-bbbb"))


def described(*image_ids: str) -> list[dict[str, object]]:
    """Return images as DescribeImages describes them."""
    image = {"OsName": "TencentOS", "ImageSize": 50, "ImageState": "NORMAL", "Platform": None}
    image |= {"SnapshotSet": [{"SnapshotId": "snap-1"}], "Tags": [{"Key": "Region"}]}
    return [{"ImageId": image_id, **image} for image_id in image_ids]


def answer(*image_ids: str, total: int | None = None) -> dict[str, object]:
    """Return an answer of DescribeImages, as tccli prints it."""
    total = len(image_ids) if total is None else total
    return {"TotalCount": total, "ImageSet": described(*image_ids), "RequestId": "r"}


IMAGE_FIELDS = ("OsName", "ImageSize", "ImageState", "Platform", "SnapshotSet", "Tags")


@pytest.mark.parametrize("indent", [None, 4])
@pytest.mark.parametrize(
    "values",
    [
        [answer("img-aaaa", "img-bbbb")],
        [{"Response": answer("img-aaaa", "img-bbbb")}],
        [answer("img-aaaa", total=2), answer("img-bbbb", total=2)],
        [[answer("img-aaaa"), answer("img-bbbb")]],
        [described("img-aaaa", "img-bbbb")],
        described("img-aaaa", "img-bbbb"),
    ],
)
def test_answers_of_the_vendor_are_taken(
    manifest: Reader, values: list[object], indent: int | None
) -> None:
    """Answers of DescribeImages are read: whole, in part, or several in sequence.

    Other keys are ignored.
    """
    read = manifest.read("\n".join(json.dumps(value, indent=indent) for value in values))
    assert read.requests == (request("img-aaaa"), request("img-bbbb"))
    assert read.ignored_columns == IMAGE_FIELDS
    assert read.notes == ()


def test_one_page_of_an_answer_is_noted(manifest: Reader) -> None:
    """The vendor returns twenty images unless it is asked for more."""
    (note,) = manifest.read(json.dumps(answer("img-aaaa", total=130))).notes
    assert "1 of 130 images" in note
    assert "--Offset" in note


@pytest.mark.parametrize(
    ("answers", "notes"),
    [
        ([answer("img-aaaa", total=3), answer("img-bbbb", "img-cccc")], ["1 of 3"]),
        ([answer("img-aaaa", "img-bbbb"), answer("img-cccc", total=3)], ["1 of 3"]),
        ([answer("img-aaaa", total=2), answer("img-bbbb", total=3)], ["1 of 2", "1 of 3"]),
        # two lists of the same length, of which one is a page
        ([answer("img-aaaa", "img-bbbb"), answer("img-cccc", total=2)], ["3 of 4"]),
        ([answer("img-aaaa", "img-bbbb"), answer("img-cccc", "img-dddd")], []),
    ],
)
def test_a_page_among_several_answers_is_noted(
    manifest: Reader, answers: list[object], notes: list[str]
) -> None:
    """The images of another answer do not make up for those that are missing."""
    read = manifest.read("\n".join(map(json.dumps, answers)))
    assert len(read.notes) == len(notes)
    for note, words in zip(read.notes, notes, strict=True):
        assert f" {words} images" in note


@pytest.mark.parametrize(
    "line",
    [
        json.dumps(answer("img-bbbb", "img-cccc", total=3)),
        json.dumps({"Response": answer("img-bbbb", "img-cccc", total=3)}),
        json.dumps(["img-bbbb", "img-cccc"]),
        json.dumps([{"image_id": "img-bbbb"}, "img-cccc"]),
        json.dumps({"ids": {"sensitive": False, "value": ["img-bbbb", "img-cccc"]}}),
    ],
)
def test_lines_of_json_may_be_rows_and_lists(manifest: Reader, line: str) -> None:
    """A file to which tools append is read as if each line were a file."""
    read = manifest.read(f'{{"image_id": "img-aaaa"}}\n{line}\n"img-dddd"\n')
    assert [one.image_ids for one in read.requests] == [
        ("img-aaaa",),
        ("img-bbbb",),
        ("img-cccc",),
        ("img-dddd",),
    ]
    assert len(read.notes) == ("TotalCount" in line)
    assert ("OsName" in read.ignored_columns) == ("TotalCount" in line)


def test_a_bad_line_of_json_is_a_fault_of_its_own(manifest: Reader) -> None:
    """An error of the vendor and a repeated key among rows do not hide the others."""
    lines = ['{"image_id": "img-aaaa"}', '{"Error": {"Code": "A.B", "Message": "no"}}']
    lines += ['{"image_id": "img-bbbb", "image_id": "img-cccc"}', "[", '["img-dddd"]']
    read = manifest.read("\n".join(lines), skip_invalid=True)
    assert [one.image_ids for one in read.requests] == [("img-aaaa",), ("img-dddd",)]
    assert [fault.number for fault in read.faults] == [2, 3, 4]
    assert "A.B: no" in read.faults[0].reason
    assert "the key is given twice" in read.faults[1].reason


@pytest.mark.parametrize(
    "content",
    [
        "img-aaaa;img-bbbb\nimg-cccc\n",
        "img-aaaa; img-bbbb\nimg-cccc;\n",
        "img-cccc, img-aaaa ;\timg-bbbb # x\n",
        '"img-aaaa"; "img-bbbb"\n\'img-cccc\'\n',
        '["img-aaaa; img-bbbb", "img-cccc"]',
        "image_ids\nimg-aaaa; img-bbbb\nimg-cccc",
    ],
)
def test_ids_with_semicolons_are_one_request(manifest: Reader, content: str) -> None:
    """Blanks and quotes beside the semicolon do not split it."""
    found = {one.image_ids for one in manifest.read(content).requests}
    assert found == {("img-aaaa", "img-bbbb"), ("img-cccc",)}


def test_a_list_of_lists_of_ids_is_not_split(manifest: Reader) -> None:
    """The inner ones may be requests, or the answers of several calls."""
    faults = manifest.faults('[["img-aaaa", "img-bbbb"], ["img-cccc"]]')
    assert [fault.number for fault in faults] == [1, 2]
    assert all("image_ids" in fault.remedy for fault in faults)


@pytest.mark.parametrize("given", [[], [""], [None], None])
def test_an_empty_list_of_prefixes_is_left_out(manifest: Reader, given: object) -> None:
    """The flag fills it in, as it does for an empty cell."""
    row = json.dumps({"ImageIds": ["img-aaaa"], "FileNamePrefixList": given})
    assert manifest.read(row, {**FLAGS, "prefix": "p"}).requests == (
        request("img-aaaa", prefix="p"),
    )


@pytest.mark.parametrize(
    "content",
    [
        "image_ids;prefix\nimg-aaaa;img-bbbb\n",
        "image_ids;prefix;region\nimg-aaaa; img-bbbb;\n",
        "image_ids,prefix\nimg-aaaa,img-bbbb\n",
        "image_ids;region;note\nimg-aaaa;;img-bbbb\n",
        "image_id;prefix\nimg-aaaa;img-bbbb\n",
    ],
)
def test_ids_that_a_delimiter_splits_are_a_fault(manifest: Reader, content: str) -> None:
    """Else the others would become a prefix, or be ignored."""
    faults = manifest.faults(content, skip_invalid=True)
    assert [str(fault).partition(". ")[0] for fault in faults] == [
        "line 2: has image ids in several columns"
    ]
    assert "in quotes" in faults[0].remedy


@pytest.mark.parametrize(
    "content",
    [
        "image_id,prefix\nimg-aaaa,img-aaaa\n",
        "ImageId,Copy of\nimg-aaaa,img-bbbb\n",
        'image_ids;prefix\n"img-aaaa";\n',
    ],
)
def test_other_columns_may_have_image_ids(manifest: Reader, content: str) -> None:
    """Another column may have the id of the same image or of its source image.

    An image may be the prefix of its own objects, and tools tell which image it was copied from.
    """
    assert [one.image_ids for one in manifest.read(content, skip_invalid=True).requests] == [
        ("img-aaaa",)
    ]


@pytest.mark.parametrize(
    "content",
    [
        '[{"image_id": "img-aaaa"}]',
        '{"image_id": "img-aaaa"}\n',
        json.dumps(answer("img-aaaa"), indent=2),
        "image_id\nimg-aaaa",
        "img-aaaa",
    ],
)
def test_comments_may_be_above_everything(manifest: Reader, content: str) -> None:
    """They are skipped, and the lines are still counted from the first."""
    assert manifest.read(f"# a\n\n # {{b}}\n{content}").requests == (request("img-aaaa"),)
    assert manifest.fault("# a\n#\n").startswith("line 1: the manifest is empty.")
    assert manifest.fault('# a\n{"image_id": "x"}').startswith("line 2, image_id: ")


def output(value: object) -> dict[str, object]:
    """Return an output as `terraform output -json` prints it."""
    return {"sensitive": False, "type": ["tuple", ["string"]], "value": value}


@pytest.mark.parametrize(
    "value",
    [
        ["img-aaaa", "img-bbbb"],
        {"web": "img-aaaa", "db": "img-bbbb"},
        [{"image_id": "img-aaaa", "image_name": "x"}, {"image_id": "img-bbbb"}],
    ],
)
def test_the_only_output_of_terraform_with_images_is_taken(manifest: Reader, value: object) -> None:
    """Other outputs are ignored, whatever their names."""
    read = manifest.read(json.dumps({"bucket": output("b"), "ids": output(value)}, indent=2))
    assert read.requests == (request("img-aaaa"), request("img-bbbb"))
    assert read.notes == ("Outputs of Terraform without images: bucket.",)


@pytest.mark.parametrize("other", [None, "ubuntu", {"id": "x"}])
@pytest.mark.parametrize("by_name", [False, True])
def test_whatever_is_beside_an_image_in_an_output_is_a_fault(
    manifest: Reader, other: object, *, by_name: bool
) -> None:
    """One that is not known yet, or that is no image, does not hide the others."""
    value = {"a": "img-aaaa", "b": other} if by_name else ["img-aaaa", other]
    alone = json.dumps({"bucket": output("b"), "ids": output(value)})
    (fault,) = manifest.faults(alone)
    assert (fault.unit, fault.number) == ("object", 2)
    beside = json.dumps({"ids": output(value), "other": output(["img-cccc"])})
    assert "several outputs of Terraform have image ids: ids, other." in manifest.fault(beside)


@pytest.mark.parametrize(
    "value", [{"images": ["img-aaaa"]}, [["img-aaaa"]], {"x": {"y": ["img-aaaa"]}}]
)
def test_images_within_an_output_are_not_lost(manifest: Reader, value: object) -> None:
    """Which of its lists are meant is not certain."""
    content = {"list": output(value), "ids": output(["img-bbbb"])}
    assert "have image ids: list, ids." in manifest.fault(json.dumps(content))
    assert manifest.faults(json.dumps({"list": output(value)}))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (json.dumps({"a": output([["img-aaaa"]])}), "the output a of Terraform has lists in its"),
        (json.dumps(answer()), "the answer of DescribeImages has no image."),
        ('{"ImageSet": null}', "the answer of DescribeImages has no image."),
        (
            '{"Response": {"Error": {"Code": "AuthFailure.SecretIdNotFound", "Message": "no."}}}',
            "the file is an error of the vendor: AuthFailure.SecretIdNotFound: no.",
        ),
        (
            "[TencentCloudSDKException] code:AuthFailure.X message:y",
            "the file is an error of tccli",
        ),
        ("Inquiry result is A\nInquiry result is B\n{\n}\n", "text is above the JSON: 'Inquiry"),
        ("+-------+\n| DescribeImages |\n", "the manifest seems to be a table or text of tccli."),
        (json.dumps({"a": output(["img-aaaa"]), "b": output("img-bbbb")}), "several outputs of Te"),
        (json.dumps({"a": output("x")}), "no output of Terraform is a list of image ids: a."),
        ('{"terraform_version": "1.9"}', "the file is a state or a plan of Terraform."),
        ('ids = [\n  "img-aaaa",\n]\n', "the manifest seems to be text of terraform output."),
    ],
)
def test_other_output_of_tools_is_one_fault(manifest: Reader, content: str, expected: str) -> None:
    """The fault says what the file is; none of its rows is reported."""
    (fault,) = manifest.faults(content, skip_invalid=True)
    assert str(fault).startswith(f"line 1: {expected}")


def test_images_that_the_vendor_does_not_export_are_noted(manifest: Reader) -> None:
    """A note names the images that the vendor does not export.

    They are enqueued nevertheless: the vendor decides, and nothing is left out silently.
    """
    kinds = ["PRIVATE_IMAGE", *["PUBLIC_IMAGE"] * 5, "SHARED_IMAGE", "NEW_IMAGE", ["odd"]]
    images = [{"ImageId": f"img-0000000{at}", "ImageType": kind} for at, kind in enumerate(kinds)]
    read = manifest.read(json.dumps({"ImageSet": images}))
    assert len(read.requests) == len(images)
    (note,) = read.notes
    assert note.startswith(
        "6 of 9 images cannot be exported, because the vendor exports private images only: "
        "img-00000001, img-00000002, img-00000003, img-00000004, img-00000005, … and 1 more."
    )
    lines = "\n".join(json.dumps(image) for image in images)
    assert manifest.read(lines).notes == read.notes
    assert manifest.read(json.dumps(images[:1])).notes == ()


CHINESE = "image_id,prefix\nimg-aaaa,\u5907\u4efd\nimg-bbbb,\u5907\u4efd\n"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-be"])
def test_a_byte_order_mark_names_the_encoding(manifest: Reader, encoding: str) -> None:
    """Excel writes UTF-8 and UTF-16 with such marks; --encoding does not change them."""
    mark = "\ufeff" if encoding == "utf-16-be" else ""
    content = (mark + CHINESE).encode(encoding)
    assert manifest.read(content).requests[0].prefix == "\u5907\u4efd"
    assert len(manifest.read(content, encoding="gb18030").requests) == 2


@pytest.mark.parametrize("content", ["\x1c", "\u00a0\n", "\u200b", "\x0b\n\u3000"])
def test_invisible_characters_alone_are_no_rows(manifest: Reader, content: str) -> None:
    """They look like an empty file, so they are reported as one."""
    assert manifest.fault(content).startswith("line 1: the manifest is empty.")


@pytest.mark.parametrize("encoding", ["gb18030", "GBK", "utf-16-le", "utf-32"])
def test_the_encoding_can_be_named(manifest: Reader, encoding: str) -> None:
    """Text of a Chinese Excel is read as the user says."""
    read = manifest.read(CHINESE.encode(encoding), encoding=encoding)
    assert [one.prefix for one in read.requests] == ["\u5907\u4efd"] * 2


@pytest.mark.parametrize("name", ["utf16", "UTF-16", "U16", "utf-32", "utf_32"])
def test_the_order_of_bytes_has_a_name_that_exists(manifest: Reader, name: str) -> None:
    """Without a mark both orders are possible."""
    with pytest.raises(ManifestError) as caught:
        manifest.read(CHINESE.encode(f"{name[0]}tf-{name[-2:]}-be"), encoding=name)
    (fault,) = caught.value.faults
    *_, little, _or, big = fault.remedy.rstrip(".").replace("--encoding ", "").split()
    assert little.endswith("-le")
    content = CHINESE.encode(big)
    assert len(manifest.read(content, encoding=big).requests) == 2


@pytest.mark.parametrize("encoding", ["gb18030", "big5", "latin-1"])
def test_utf8_is_not_read_in_another_encoding(manifest: Reader, encoding: str) -> None:
    """It would give other characters, which would end in the object keys."""
    rows = "".join(f"img-{number:08x},备份\n" for number in range(400))
    content = f"image_id,prefix\n{rows}".encode()
    with pytest.raises(ManifestError) as caught:
        manifest.read(content, encoding=encoding)
    assert caught.value.faults[0].remedy == "Leave out --encoding."
    assert len(manifest.read(content, encoding="utf-8").requests) == 400


@pytest.mark.parametrize(
    ("name", "hint"),
    [("gb18031", "Did you mean gb18030?"), ("utf9", "Did you mean utf"), ("base64", "Use gb18030")],
)
def test_an_unknown_encoding_names_the_nearest(manifest: Reader, name: str, hint: str) -> None:
    """Codecs of Python that do not decode text are unknown too."""
    with pytest.raises(UsageError, match=f"--encoding: '{name}' is not a text encoding") as caught:
        manifest.read("image_id\nimg-aaaa\n", encoding=name)
    assert caught.value.remedy.startswith(hint)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (CHINESE.encode("utf-16-le"), "the manifest seems to be UTF-16-LE without a byte"),
        (CHINESE.encode("utf-16-be"), "the manifest seems to be UTF-16-BE without a byte"),
        (CHINESE.encode("utf-32"), "the manifest is written in UTF-32."),
        (CHINESE.encode("utf-32-be"), "the manifest seems to be UTF-32-BE without a byte"),
        (b"\x1f\x8b\x08\x00", "the manifest seems to be a gzip file."),
        (b"PK\x03\x04--xl/workbook.xml", "the manifest seems to be an Excel workbook (.xlsx)."),
        (b"PK\x03\x04--Index/Document.iwa", "the manifest seems to be a Numbers spreadsheet."),
        (b"PK\x03\x04--", "the manifest seems to be a zip file."),
        (b"%PDF-1.7\n", "the manifest seems to be a PDF file."),
        (b"\n<!DOCTYPE html>", "the manifest seems to be an HTML page."),
        (b"{\\rtf1 img-aaaa}", "the manifest seems to be an RTF file."),
        (b"QFI\xfb\x00\x00\n" + b"\x00" * 3_000_000, "the manifest seems to be a QCOW2 disk"),
        (b"\x00" * 3_000_000, "contains NUL characters: the manifest is not text"),
    ],
)
def test_a_file_that_is_no_text_is_one_fault(
    manifest: Reader, content: bytes, expected: str
) -> None:
    """The fault says what the file seems to be, and how to save it."""
    (fault,) = manifest.faults(content, skip_invalid=True)
    assert str(fault).startswith(f"line 1: {expected}")
    assert "Save it as" in fault.remedy


def test_text_in_another_encoding_has_a_remedy_for_every_row(manifest: Reader) -> None:
    """The faults are equal, so that they are printed as one."""
    first, second = manifest.faults(CHINESE.encode("gbk"), skip_invalid=True)
    assert (first.number, second.number) == (2, 3)
    assert (first.reason, first.remedy) == (second.reason, second.remedy)
    assert "--encoding gb18030" in first.remedy


def test_invalid_flag_is_reported_as_a_flag(manifest: Reader) -> None:
    """It is reported once, not for each row, and cannot be skipped."""
    with pytest.raises(UsageError, match="--region: 'Frankfurt' is not a valid region") as caught:
        manifest.read("image_id\nimg-aaaa\n", {"region": "Frankfurt"}, skip_invalid=True)
    assert not isinstance(caught.value, ManifestError)
    assert caught.value.remedy == "Did you mean eu-frankfurt?"


def test_images_may_be_named_by_flags() -> None:
    """Each image becomes a request, completed by the other flags."""
    made = requests_from_images(["img-aaaa", " img-bbbb"], FLAGS)
    assert made == Manifest(requests=(request("img-aaaa"), request("img-bbbb")))


def test_invalid_image_flag_is_reported_with_its_position() -> None:
    """Positions count from one; a repeated image is a fault, too."""
    images = ["img-aaaa", "", "bad", "img-aaaa"]
    with pytest.raises(ManifestError) as caught:
        requests_from_images(images, FLAGS)
    assert [fault.number for fault in caught.value.faults] == [2, 3, 4]
    assert str(caught.value.faults[2]) == f"image 4: repeats img-aaaa of image 1. {REMOVE}"
    skipped = requests_from_images(images, FLAGS, skip_invalid=True)
    assert skipped.requests == (request("img-aaaa"),)
    assert skipped.faults == caught.value.faults
