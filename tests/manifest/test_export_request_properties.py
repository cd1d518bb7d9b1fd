"""ExportRequest accepts and refuses what a manifest row accepts and refuses."""

import csv
import io
import json
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from orchestrator import ExportRequest, ImageFormat
from orchestrator.errors import InvalidRequestError, ManifestError, RowFault
from orchestrator.manifest.request_reader import read_manifest

untimed = settings(deadline=None)  # a busy machine must not fail an example

REQUIRED = ("image_ids", "region", "bucket")

_blanks = st.sampled_from(["", " ", "\t", " \n"])
_image = st.from_regex(r"img-[0-9a-z]{4,6}", fullmatch=True)
_images = st.lists(_image, min_size=1, max_size=3)
_regions = st.sampled_from(["ap-singapore", "na-siliconvalley", "xx-new-1", "ap-a/b", "x@y"])
_buckets = st.from_regex(r"[a-z0-9]{1,31}-[0-9]{5,10}|[a-z0-9-]{6}", fullmatch=True)
_moments = st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31)).map(datetime.isoformat)  # noqa: DTZ001 - naive times are tested, too
_numbers = st.integers(-1100, 1100) | st.integers() | st.sampled_from([10**18, 10**19, -(10**18)])
USUAL: dict[str, st.SearchStrategy[Any]] = {
    "image_ids": _image | _images | _images.map(";".join) | st.sampled_from(["img-a", [], ";"]),
    "region": _regions,
    "bucket": _buckets,
    "format": st.sampled_from([*ImageFormat, "qcow2", "Vhd", "iso"]),
    "prefix": st.text("ab/.-", max_size=9),
    "only_root_disk": st.booleans() | st.sampled_from(["yes", "TRUE", "1", "No", "0", "on"]),
    "role_name": st.from_regex(r"[A-Za-z0-9_.+=,@/-]{1,20}", fullmatch=True),
    "priority": _numbers | _numbers.map(str),
    "not_before": st.builds("{}{}".format, _moments, st.sampled_from(["", "Z", "+08:00", "-9"])),
}
_anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=50),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(), inner, max_size=2),
    max_leaves=3,
)
_VALID = {"image_ids": "img-1a2b3c4d", "region": "ap-tokyo", "bucket": "backup-1250000000"}


def _padded(value: Any) -> st.SearchStrategy[Any]:
    """Put blanks around a text."""
    if not isinstance(value, str):
        return st.just(value)
    return st.builds("{}{}{}".format, _blanks, st.just(str(value)), _blanks)


_values = {name: values.flatmap(_padded) for name, values in USUAL.items()}
_usual_rows = st.fixed_dictionaries({}, optional=_values).map(lambda row: _VALID | row)
_odd_rows = st.builds(
    lambda row, name, value: row | {name: value},
    st.just(_VALID) | _usual_rows,
    st.sampled_from([*USUAL]),
    _anything,
)
_text_rows = _usual_rows.map(
    lambda row: _VALID | {name: value for name, value in row.items() if isinstance(value, str)}
)


@untimed
@given(row=_usual_rows | _odd_rows)
@example(row={})
@example(row=_VALID | {"priority": 10**19})
@example(row=_VALID | {"bucket": "a" * 31 + "-1250000000"})
def test_json_row_and_request_give_the_same_result(row: dict[str, Any]) -> None:
    """The same values give the same request or the same refusal.

    A refusal has the same reason and remedy.
    """
    assert_same_result(row, json.dumps(row).encode())


@untimed
@given(row=_text_rows)
def test_csv_row_and_request_give_the_same_result(row: dict[str, str]) -> None:
    """If all values are text, CSV gives the same result, too."""
    text = io.StringIO()
    writer = csv.DictWriter(text, row, quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writeheader()
    writer.writerow(row)
    assert_same_result(row, text.getvalue().encode())


@untimed
@given(_usual_rows)
def test_request_made_from_its_own_values_is_the_same(row: dict[str, Any]) -> None:
    """Normalized values are valid and do not change."""
    request = _request(row)
    if isinstance(request, ExportRequest):
        again = ExportRequest(*(getattr(request, field.name) for field in fields(request)))
        assert repr(again) == repr(request)
        assert request.not_before is None or request.not_before.tzinfo is UTC


def assert_same_result(values: dict[str, Any], manifest: bytes) -> None:
    """Compare a request of the values with the only row of the manifest."""
    request = _request(values)
    if isinstance(request, ExportRequest):
        (read,) = read_manifest(io.BytesIO(manifest), "manifest", {}).requests
        assert read == request
        assert repr(read) == repr(request)
        assert hash(read) == hash(request)
    else:
        assert _comparable(request.field, request.reason, request.remedy) in {
            _comparable(fault.column, fault.reason, fault.remedy) for fault in _faults(manifest)
        }


def _request(values: dict[str, Any]) -> ExportRequest | InvalidRequestError:
    """Return the request of the values, or the error that it raises."""
    absent: dict[str, Any] = dict.fromkeys(REQUIRED)
    try:
        return ExportRequest(**absent | values)
    except InvalidRequestError as error:
        return error


def _faults(manifest: bytes) -> tuple[RowFault, ...]:
    """Return the faults of a manifest that is refused."""
    with pytest.raises(ManifestError) as caught:
        read_manifest(io.BytesIO(manifest), "manifest", {})
    return caught.value.faults


def _comparable(field: str, reason: str, remedy: str) -> tuple[str, str, str]:
    """Return what a fault and an error have in common."""
    if reason.endswith(" is given."):  # a file and a call are completed in different ways
        remedy = ""
    return field, reason, remedy
