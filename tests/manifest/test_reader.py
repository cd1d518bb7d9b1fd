"""Manifests: what is read, what is refused, and what is said about it."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from orchestrator.errors import ManifestError, RowFault, UsageError
from orchestrator.manifest.export_request import ExportRequest
from orchestrator.manifest.reader import Defaults, Manifest, read_manifest, requests_from_images
from orchestrator.model import ImageFormat

FLAGS = Defaults(region="ap-singapore", bucket="backup-1250000000")


def request(*image_ids: str, **others: object) -> ExportRequest:
    """A request as the flags above make it."""
    values: dict[str, object] = {"region": FLAGS.region, "bucket": FLAGS.bucket} | others
    return ExportRequest(image_ids, **values)  # type: ignore[arg-type]  # the tests name true fields


class Reader:
    """Reads manifests that really lie in a file."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "manifest"

    def read(
        self, content: str | bytes, defaults: Defaults = FLAGS, *, skip_invalid: bool = False
    ) -> Manifest:
        """What comes of a manifest that can be read."""
        self._path.write_bytes(content if isinstance(content, bytes) else content.encode())
        with self._path.open("rb") as stream:
            manifest = read_manifest(stream, "manifest", defaults, skip_invalid=skip_invalid)
            assert not stream.closed
        return manifest

    def faults(
        self, content: str | bytes, defaults: Defaults = FLAGS, *, skip_invalid: bool = False
    ) -> tuple[RowFault, ...]:
        """Why a manifest is refused."""
        with pytest.raises(ManifestError) as caught:
            self.read(content, defaults, skip_invalid=skip_invalid)
        assert all(fault.remedy and str(fault).isprintable() for fault in caught.value.faults)
        return caught.value.faults

    def fault(self, content: str | bytes, defaults: Defaults = FLAGS) -> str:
        """The only reason why a manifest is refused, as a person reads it."""
        (fault,) = self.faults(content, defaults)
        return str(fault)


@pytest.fixture
def manifest(tmp_path: Path) -> Reader:
    """Writes a manifest and reads it."""
    return Reader(tmp_path)


def test_a_row_may_fill_every_column(manifest: Reader) -> None:
    """All columns are understood, in any order, with blanks around cells."""
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


def test_flags_fill_what_a_row_leaves_out(manifest: Reader) -> None:
    """An empty cell and a missing column take the flag's value; a given cell keeps its own."""
    flags = Defaults(
        region="ap-tokyo",
        bucket="backup-1250000000",
        format="vhd",
        prefix="p",
        only_root_disk=True,
        role_name="r",
        priority=3,
        not_before="2026-01-01",
        exact_names=True,
    )
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
def test_several_images_may_share_a_request(manifest: Reader, content: str) -> None:
    """Separated by semicolons in CSV, as a list in JSON, they become one request."""
    assert manifest.read(content).requests == (request("img-aaaa", "img-bbbb"),)


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
def test_the_same_rows_may_be_written_in_many_ways(manifest: Reader, content: str | bytes) -> None:
    """Marks, line ends, blank lines, quotes and JSON's two forms change nothing."""
    read = manifest.read(content)
    assert read.requests == (request("img-aaaa"), request("img-bbbb"))


def test_lines_are_those_of_the_file(manifest: Reader) -> None:
    """Blank lines, quoted line breaks and every kind of line end are counted as an editor does."""
    faults = manifest.faults('\n\nimage_id,prefix\r\n\rbad1,x\r\n"img-aaaa","a\nb"\n\nbad2,"x"\n')
    assert [(fault.line, fault.column) for fault in faults] == [
        (5, "image_id"),
        (6, "prefix"),
        (9, "image_id"),
    ]


@pytest.mark.parametrize("content", ["", "\n \r\n", b"\xef\xbb\xbf", "image_id\n\n", "[ ]", "[]\n"])
def test_a_manifest_without_rows_is_a_mistake(manifest: Reader, content: str | bytes) -> None:
    """Nothing at all, a header alone and an empty array are refused, with rows skipped or not."""
    (fault,) = manifest.faults(content, skip_invalid=True)
    assert "Add a row for each image." in str(fault)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("img-1a2b3c4d,ap-tokyo\n", "line 1: an image id stands where a header is needed."),
        ("\nprefix\nx\n", "line 2, image_id: no image is given."),
        ("image_id,region,region\n", "line 1, region: the column stands twice in the header."),
        ("image_id;region\nimg-aaaa;x\n", "line 1: the columns are not separated by commas."),
        (",\nimg-aaaa,\n", "line 2: an image id stands where a header is needed."),
        (",,\n", "line 1: the header names no column."),
        ("image_id\nimg-aaaa\n".encode("utf-16"), "line 1: the manifest is written in UTF-16."),
        (b"\xfe\xff" + "image_id".encode("utf-16-be"), "line 1: the manifest is written in UTF-16"),
        ("image_id\nimg-aaaa\n".encode("utf-16-le"), "line 1: holds NUL characters, as UTF-16"),
        (b"image_id,\xff\nimg-aaaa,\n", "line 1: is not valid UTF-8."),
        (b"\x00" * 3_000_000, "line 1: the line is longer than 1048576 characters."),
        (
            'image_id,prefix\nimg-aaaa,"x\nimg-bbbb,y\n',
            "line 2: is not CSV: unexpected end of data",
        ),
        ('"image_id\n', "line 1: is not CSV: unexpected end of data."),
        ('[{"image_id": "img-aaaa"},\n]', "line 2: is not JSON: Expecting value."),
        ('[{"image_id": "img-aaaa"}\n{}]', "line 2: is not JSON: , or ] is missing."),
        ('[\n{"image_id":\n"img-aaaa",\n}]', "line 4: is not JSON: "),
        ('[{"image_id": "img-aaaa"}]\n\n{}', "line 3: text follows the end of the array."),
        ('[{"image_id": "img-aaaa"}', "line 1: is not JSON: , or ] is missing."),
        ("[" * 100_000, "line 1: is not JSON: it is nested too deeply."),
    ],
)
def test_a_manifest_that_makes_no_sense_as_a_whole_is_refused(
    manifest: Reader, content: str | bytes, expected: str
) -> None:
    """Where later rows cannot be trusted nothing is taken, even when rows may be skipped."""
    faults = manifest.faults(content, skip_invalid=True)
    assert str(faults[-1]).startswith(expected)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("image_id,prefix\nimg-aaaa\n", "line 2: cells in this row: 1; columns in the header: 2."),
        ("image_id\nimg-aaaa,x\n", "line 2: cells in this row: 2; columns in the header: 1."),
        (b"image_id\n\nimg-\xff\n", "line 3, image_id: is not valid UTF-8."),
        (b"image_id\nimg-\x00aaaa\n", "line 2, image_id: holds NUL characters"),
        ("image_id\n" + "x" * 200_000 + "\n", "line 2: is not CSV: field larger than field limit"),
        ('image_id\n"img"-aaaa\n', "line 2: is not CSV: ',' expected after '\"'."),
        ('{"image_id": "img-aaaa",}', "line 1: is not JSON: "),
        ('{"image_id": \n', "line 1: is not JSON: "),
        ('{"image_id": "img-aaaa"} x', "line 1: is not JSON: Extra data (column 26)."),
        ('\n{"image_id": "img-aaaa", "image_id": "img-bbbb"}', "line 2, image_id: the key stands"),
        (b'{"image_id": "img-\xff"}', "line 1: is not valid UTF-8."),
        ('{"a":' + "[" * 100_000, "line 1: is not JSON: it is nested too deeply."),
        ("[\n5]", "line 2: object 1: is not a JSON object."),
        ('[{"image_id": "img-aaaa"}, "x"]', "line 1: object 2: is not a JSON object."),
        ("[\n" + " " * (2**16 - 3) + "12345]", "line 2: object 1: is not a JSON object."),
        (
            '{"image_id": "img-aaaa", "priority": ' + "9" * 5000 + "}",
            "line 1, priority: has the wrong type (a num",
        ),
        ("{}", "line 1, image_id: no image is given."),
    ],
)
def test_a_broken_row_is_named_by_its_line(
    manifest: Reader, content: str | bytes, expected: str
) -> None:
    """The row is a fault; where rows may be skipped, it alone is missing."""
    assert manifest.fault(content).startswith(expected)
    (fault,) = manifest.read(content, skip_invalid=True).faults
    assert str(fault).startswith(expected)


def test_all_faults_are_told_at_once(manifest: Reader) -> None:
    """One run names every unknown column and every bad cell of every row."""
    faults = manifest.faults("image_id,regin,format\nbad,,png\nimg-aaaa,,\nimg-aaaa,,tar\n")
    assert [(fault.line, fault.column) for fault in faults] == [
        (1, "regin"),
        (2, "image_id"),
        (2, "format"),
        (4, "format"),
    ]


def test_an_unknown_column_is_met_with_the_nearest_known_one(manifest: Reader) -> None:
    """In a header and in an object alike."""
    assert manifest.fault("image_id,Bucket_name\nimg-aaaa,x\n").endswith("Did you mean bucket?")
    fault = manifest.fault('{"image_id": "img-aaaa"}\n{"image_id": "img-bbbb", "regin": "x"}')
    assert fault == "line 2, regin: 'regin' is not a known column. Did you mean region?"
    assert "Known columns are image_id, " in manifest.fault("image_id,zzz\nimg-aaaa,\n")


def test_a_missing_region_is_told_once_for_a_csv(manifest: Reader) -> None:
    """The header's line is named where neither a column nor a flag can fill it in."""
    faults = manifest.faults("image_id\nimg-aaaa\nimg-bbbb\n", Defaults())
    assert [(fault.line, fault.column) for fault in faults] == [(1, "region"), (1, "bucket")]
    assert "give --bucket" in faults[1].remedy


def test_a_row_that_lacks_its_region_is_named(manifest: Reader) -> None:
    """An empty cell with no flag behind it is a fault of its row."""
    flags = Defaults(bucket="backup-1250000000")
    assert manifest.fault("image_id,region\nimg-aaaa,\n", flags).startswith("line 2, region: no")
    assert manifest.fault('{"image_id": "img-aaaa"}', flags).startswith("line 1, region: no")


def test_a_row_names_its_image_in_one_column(manifest: Reader) -> None:
    """Both columns may exist, but not both be filled."""
    content = "image_id,image_ids\nimg-aaaa,\n,img-bbbb;img-cccc\nimg-dddd,img-eeee\n,\n"
    assert manifest.fault(content).startswith("line 4, image_id: image_id and image_ids are both")


def test_a_repeated_row_names_the_first(manifest: Reader) -> None:
    """Priority and time make no other export; format, prefix, disks and bucket do."""
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
        "line 3: repeats line 2. Remove one of the two.",
        "line 9: repeats line 8. Remove one of the two.",
    ]


def test_objects_on_one_line_are_told_apart(manifest: Reader) -> None:
    """An array without line breaks is as good as one with them."""
    content = json.dumps([{"image_id": name} for name in ("img-aaaa", "bad", "img-aaaa")])
    faults = manifest.faults(content)
    assert str(faults[0]).startswith("line 1, image_id: object 2: 'bad' is not a valid image id.")
    assert str(faults[1]).startswith("line 1: object 3: repeats line 1, object 1.")


def test_skipping_takes_the_good_rows_and_names_the_rest(manifest: Reader) -> None:
    """Broken rows are counted, unknown columns are named once, the first of two repeats stays."""
    read = manifest.read(
        'image_id,owner,\n"img-aaaa",me,\nbad,,\nimg-bbbb\nimg-aaaa,,\n"img"x,,\nimg-cccc,,\n',
        skip_invalid=True,
    )
    assert read.requests == (request("img-aaaa"), request("img-cccc"))
    assert [fault.line for fault in read.faults] == [3, 4, 5, 6]
    assert read.ignored_columns == ("owner", "")


def test_skipping_ignores_unknown_keys(manifest: Reader) -> None:
    """An object with a key too many is taken all the same."""
    content = '{"image_id": "img-aaaa", "a": 1}\n{"image_id": "img-bbbb", "b": [], "a": {}}\nx\n'
    read = manifest.read(content, skip_invalid=True)
    assert read.requests == (request("img-aaaa"), request("img-bbbb"))
    assert read.ignored_columns == ("a", "b")
    assert [fault.line for fault in read.faults] == [3]


def test_a_bad_flag_is_no_fault_of_the_rows(manifest: Reader) -> None:
    """It is named as the flag it is, however many rows there are, and may not be skipped."""
    with pytest.raises(UsageError, match="--region: 'Frankfurt' is not a valid region") as caught:
        manifest.read("image_id\nimg-aaaa\n", Defaults(region="Frankfurt"), skip_invalid=True)
    assert not isinstance(caught.value, ManifestError)
    assert caught.value.remedy == "Did you mean eu-frankfurt?"


def test_images_may_be_named_by_flags() -> None:
    """Each becomes a request, with the other flags filled in."""
    made = requests_from_images(["img-aaaa", " img-bbbb"], FLAGS)
    assert made == Manifest(requests=(request("img-aaaa"), request("img-bbbb")))


def test_a_bad_image_flag_is_named_by_its_position() -> None:
    """Positions count from one; a repeated image is a fault, too."""
    images = ["img-aaaa", "", "bad", "img-aaaa"]
    with pytest.raises(ManifestError) as caught:
        requests_from_images(images, FLAGS)
    assert [fault.line for fault in caught.value.faults] == [2, 3, 4]
    skipped = requests_from_images(images, FLAGS, skip_invalid=True)
    assert skipped.requests == (request("img-aaaa"),)
    assert skipped.faults == caught.value.faults
