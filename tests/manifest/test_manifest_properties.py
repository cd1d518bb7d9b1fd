"""What is true of every manifest, valid or not."""

import csv
import io
import json
import re
from datetime import UTC, datetime

from hypothesis import example, given, settings
from hypothesis import strategies as st

from orchestrator.clock import iso
from orchestrator.errors import ManifestError, RowFault
from orchestrator.manifest.export_request import ExportRequest
from orchestrator.manifest.request_reader import read_manifest
from orchestrator.model import ImageFormat

untimed = settings(deadline=None)  # a busy machine must not fail an example

COLUMNS = (
    *("image_ids", "region", "bucket", "format", "prefix"),
    *("only_root_disk", "role_name", "priority", "not_before"),
)

image_ids = st.lists(
    st.from_regex(r"img-[0-9a-z]{8}", fullmatch=True), min_size=1, max_size=3, unique=True
)
key_letters = st.characters(
    exclude_categories=("Cc", "Cf", "Cs", "Z"),
    exclude_characters="/\\.\u00ab\u00bb\u2018\u2019\u201a\u201c\u201d\u201e",
)
requests = st.builds(
    ExportRequest,
    image_ids=image_ids.map(tuple),
    region=st.sampled_from(["ap-singapore", "eu-frankfurt", "xx-new-1"]),
    bucket=st.from_regex(r"[a-z0-9]{1,8}-[0-9]{10}", fullmatch=True),
    format=st.sampled_from(ImageFormat),
    prefix=st.lists(st.text(key_letters, min_size=1, max_size=9), max_size=3).map("/".join),
    only_root_disk=st.booleans(),
    role_name=st.none() | st.from_regex(r"[A-Za-z0-9_.+=,@-]{1,20}", fullmatch=True),
    priority=st.integers(-1000, 1000),
    not_before=st.none()
    | st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1)).map(  # noqa: DTZ001  # made aware below
        lambda moment: moment.replace(microsecond=0, tzinfo=UTC)
    ),
)
manifests = st.lists(
    requests, min_size=1, max_size=5, unique_by=lambda request: frozenset(request.image_ids)
)


def _row(request: ExportRequest) -> dict[str, str]:
    return {
        "image_ids": ";".join(request.image_ids),
        "region": request.region,
        "bucket": request.bucket,
        "format": request.format.lower(),
        "prefix": request.prefix,
        "only_root_disk": str(request.only_root_disk),
        "role_name": request.role_name or "",
        "priority": str(request.priority),
        "not_before": iso(request.not_before) if request.not_before else "",
    }


def _read(content: bytes) -> tuple[ExportRequest, ...]:
    return read_manifest(io.BytesIO(content), "manifest", {}).requests


@untimed
@given(
    wanted=manifests,
    columns=st.permutations(COLUMNS),
    line_end=st.sampled_from(["\n", "\r\n", "\r"]),
    mark=st.sampled_from([b"", b"\xef\xbb\xbf"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
)
def test_requests_written_as_csv_are_read_back(
    wanted: list[ExportRequest], columns: list[str], line_end: str, mark: bytes, quoting: int
) -> None:
    """Column order, line ends, quotes and byte order mark do not change requests."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, lineterminator=line_end, quoting=quoting)  # type: ignore[arg-type]  # a Literal in the stubs
    writer.writeheader()
    writer.writerows(map(_row, wanted))
    assert _read(mark + text.getvalue().encode()) == tuple(wanted)


@untimed
@given(
    wanted=manifests, as_array=st.booleans(), escaped=st.booleans(), indent=st.none() | st.just(2)
)
def test_requests_written_as_json_are_read_back(
    wanted: list[ExportRequest], *, as_array: bool, escaped: bool, indent: int | None
) -> None:
    """Lines and arrays, escaped or not, on one line or many, give the same requests."""
    rows: list[dict[str, object]] = [
        {**_row(request)}
        | {
            "image_ids": request.image_ids,
            "only_root_disk": request.only_root_disk,
            "priority": request.priority,
            "role_name": request.role_name,
        }
        for request in wanted
    ]
    if as_array:
        text = json.dumps(rows, ensure_ascii=escaped, indent=indent)
    else:
        text = "\n".join(json.dumps(row, ensure_ascii=escaped) for row in rows)
    assert _read(text.encode()) == tuple(wanted)


@untimed
@given(
    content=st.binary()
    | st.lists(
        st.sampled_from(
            [
                *(b"image_id", b"region", b",", b"\n", b"\r", b'"', b"img-aaaa", b"{", b"}", b"["),
                *(b"]", b":", b'"image_id"', b"1e999", b"NaN", b"\xff", b"\0", b";", b" "),
                b"\xef\xbb\xbf",
            ]
        )
    ).map(b"".join),
)
@example(content=b"[" * 50_000)
@example(content=b"image_id\n" + b'"' + b"\n" * 200_000)
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    """The result is requests or a ManifestError, whose faults name lines that exist."""
    lines = len(re.split(rb"\r\n|\r|\n", content))
    for skip_invalid in (False, True):
        faults = _faults(content, skip_invalid=skip_invalid)
        assert all(1 <= fault.number <= lines for fault in faults if fault.unit == "line")
        assert all(str(fault).isprintable() for fault in faults)


def _faults(content: bytes, *, skip_invalid: bool) -> tuple[RowFault, ...]:
    stream = io.BytesIO(content)
    try:
        return read_manifest(stream, "manifest", {}, skip_invalid=skip_invalid).faults
    except ManifestError as error:
        return error.faults
