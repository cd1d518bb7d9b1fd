"""ExportRequest: what it accepts, what it refuses, and what its fields contain afterwards."""

import copy
import pickle
from dataclasses import FrozenInstanceError, fields, replace
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

import pytest

import orchestrator
from orchestrator import ExportRequest, ImageFormat
from orchestrator.errors import InvalidRequestError, UsageError

VALID: dict[str, Any] = {
    "image_ids": ("img-1a2b3c4d",),
    "region": "ap-singapore",
    "bucket": "backup-1250000000",
}
TYPES: dict[str, set[type]] = {
    "image_ids": {tuple},
    "region": {str},
    "bucket": {str},
    "format": {ImageFormat},
    "prefix": {str},
    "only_root_disk": {bool},
    "role_name": {str, type(None)},
    "priority": {int},
    "not_before": {datetime, type(None)},
    "exact_names": {bool},
}
EVENING = datetime(2026, 12, 31, 22, tzinfo=UTC)


class Text(str):
    """A subclass of str, as enumerations and some libraries make them."""

    __slots__ = ()


class Number(int):
    """A subclass of int."""


class Timestamp(datetime):
    """A subclass of datetime."""


class NoOffset(tzinfo):
    """A time zone that does not know its offset."""

    def utcoffset(self, _moment: datetime | None, /) -> timedelta | None:
        """Return no offset."""
        return None

    dst = utcoffset

    def tzname(self, _moment: datetime | None, /) -> str | None:
        """Return no name."""
        return None


def made(**values: Any) -> ExportRequest:
    """Make a request from valid values and the given ones."""
    return ExportRequest(**{**VALID, **values})


def refusal(**values: Any) -> InvalidRequestError:
    """Return the error that a request with the given values raises."""
    with pytest.raises(UsageError) as caught:
        made(**values)
    assert isinstance(caught.value, InvalidRequestError)
    return caught.value


def test_text_is_one_image_id() -> None:
    """A text is not taken for a sequence of letters."""
    request = ExportRequest("img-1a2b3c4d", "ap-singapore", "backup-1250000000")
    assert request.image_ids == ("img-1a2b3c4d",)
    assert request == made()


@pytest.mark.parametrize(
    ("field", "raw", "value"),
    [
        ("image_ids", " img-aaaa ", ("img-aaaa",)),
        ("image_ids", "img-bbbb; img-aaaa;", ("img-bbbb", "img-aaaa")),
        ("image_ids", ["img-bbbb", " img-aaaa"], ("img-bbbb", "img-aaaa")),
        ("image_ids", (Text("img-aaaa"),), ("img-aaaa",)),
        ("region", " ap-tokyo\n", "ap-tokyo"),
        ("region", Text("ap-tokyo"), "ap-tokyo"),
        ("bucket", "\tother-1250000000 ", "other-1250000000"),
        ("format", "qcow2", ImageFormat.QCOW2),
        ("format", " Vhd ", ImageFormat.VHD),
        ("format", ImageFormat.VMDK, ImageFormat.VMDK),
        ("prefix", " night/2026 ", "night/2026"),
        ("only_root_disk", True, True),
        ("only_root_disk", "yes", True),
        ("only_root_disk", "TRUE", True),
        ("only_root_disk", "1", True),
        ("only_root_disk", "no", False),
        ("exact_names", "yes", True),
        ("exact_names", False, False),
        ("role_name", " CVM_QcsRole ", "CVM_QcsRole"),
        ("priority", "-7", -7),
        ("priority", " +1000 ", 1000),
        ("priority", Number(5), 5),
        ("not_before", EVENING, EVENING),
        ("not_before", "2026-12-31T22:00:00Z", EVENING),
        ("not_before", "2026-12-31 22:00", EVENING),
        ("not_before", "2027-01-01T00:00+02:00", EVENING),
        ("not_before", EVENING.replace(tzinfo=None), EVENING),
        ("not_before", EVENING.replace(tzinfo=NoOffset()), EVENING),
        ("not_before", EVENING.astimezone(ZoneInfo("Asia/Tokyo")), EVENING),
        ("not_before", EVENING.astimezone(timezone(timedelta(seconds=-3723))), EVENING),
        ("not_before", Timestamp(2026, 12, 31, 22), EVENING),
    ],
)
def test_value_is_normalized(field: str, raw: object, value: object) -> None:
    """A field contains a value of its declared type, however it was written."""
    request = made(**{field: raw})
    assert getattr(request, field) == value
    assert request == made(**{field: value})
    assert hash(request) == hash(made(**{field: value}))
    for name, types in TYPES.items():
        assert type(getattr(request, name)) in types
    assert {type(image) for image in request.image_ids} == {str}
    assert request.not_before is None or request.not_before.tzinfo is UTC


@pytest.mark.parametrize("blank", [None, "", " \t"])
def test_blank_optional_value_is_the_default(blank: str | None) -> None:
    """None and blank text are the same as no value."""
    defaults = made()
    for name in TYPES.keys() - VALID.keys():
        assert made(**{name: blank}) == defaults
    assert defaults == ExportRequest(
        **VALID,
        format=ImageFormat.RAW,
        prefix="",
        only_root_disk=False,
        role_name=None,
        priority=0,
        not_before=None,
        exact_names=False,
    )


@pytest.mark.parametrize("blank", [None, "", " \t"])
@pytest.mark.parametrize(
    ("field", "reason"),
    [
        ("image_ids", "no image is given."),
        ("region", "no region is given."),
        ("bucket", "no bucket is given."),
    ],
)
def test_blank_required_value_is_refused(field: str, blank: str | None, reason: str) -> None:
    """There is no default for images, region and bucket."""
    error = refusal(**{field: blank})
    assert (error.field, error.reason) == (field, reason)
    assert error.remedy.startswith("Pass ")


WRONG_TYPES: list[tuple[object, str]] = [
    (b"ap-singapore", "bytes"),
    (5, "a number"),
    (1.5, "a number"),
    (True, "a boolean"),
    (["ap-singapore"], "a list"),
    (("ap-singapore",), "tuple"),
    ({"id": 1}, "an object"),
    ({"a"}, "set"),
    (EVENING, "datetime"),
    (date(2026, 12, 31), "date"),
    (object(), "object"),
]
ACCEPTED_TYPES = {
    "image_ids": {"a list", "tuple"},
    "prefix": {"a list"},
    "only_root_disk": {"a boolean"},
    "exact_names": {"a boolean"},
    "priority": {"a number"},
    "not_before": {"datetime"},
}


@pytest.mark.parametrize("field", TYPES)
def test_value_of_a_wrong_type_is_refused(field: str) -> None:
    """A type that a manifest row would not accept is not converted."""
    for raw, name in WRONG_TYPES:
        if name in ACCEPTED_TYPES.get(field, ()):
            continue
        error = refusal(**{field: raw})
        assert (error.field, error.reason) == (field, f"has the wrong type ({name}).")


@pytest.mark.parametrize(
    ("field", "raw", "reason"),
    [
        ("image_ids", [], "contains no image id."),
        ("image_ids", (), "contains no image id."),
        ("image_ids", ";", "contains no image id."),
        ("image_ids", "img-AAAA", "'img-AAAA' is not a valid image id."),
        ("image_ids", "img-aaaa,img-bbbb", "'img-aaaa,img-bbbb' is not a valid image id."),
        ("image_ids", "img-aaaa\0", r"'img-aaaa\x00' is not a valid image id."),
        ("image_ids", "img-" + "a" * 33, f"'img-{'a' * 33}' is not a valid image id."),
        ("image_ids", ("img-aaaa;img-bbbb",), "'img-aaaa;img-bbbb' is not a valid image id."),
        ("image_ids", ("img-aaaa", ""), "'' is not a valid image id."),
        ("image_ids", ("img-aaaa", None), "has the wrong type (null)."),
        ("image_ids", ("img-aaaa", b"img-bbbb"), "has the wrong type (bytes)."),
        ("image_ids", (("img-aaaa",),), "has the wrong type (tuple)."),
        ("image_ids", ("img-aaaa", " img-aaaa"), "img-aaaa is listed twice in one request."),
        ("region", "Frankfurt", "'Frankfurt' is not a valid region."),
        ("region", "ap-singapore/", "'ap-singapore/' is not a valid region."),
        ("region", "ap-a.evil.example/?x", "'ap-a.evil.example/?x' is not a valid region."),
        ("region", "user@ap-singapore", "'user@ap-singapore' is not a valid region."),
        ("region", "ap-sing\0apore", r"'ap-sing\x00apore' is not a valid region."),
        ("region", "ap-x\r\nHost: y", r"'ap-x\r\nHost: y' is not a valid region."),
        ("region", "ap-\udcff", r"'ap-\udcff' is not a valid region."),
        ("region", "ap-" + "a" * 30, f"'ap-{'a' * 30}' is not a valid region."),
        ("bucket", "backup", "'backup' has no APPID at its end."),
        ("bucket", "cos://a-1250000000", "is an address, and not the name of a bucket."),
        (
            "bucket",
            "https://b-1250000000.cos.x.com/",
            "is an address, and not the name of a bucket.",
        ),
        ("bucket", "a/b-1250000000", "'a/b-1250000000' is not a valid bucket name."),
        ("bucket", "a@b-1250000000", "'a@b-1250000000' is not a valid bucket name."),
        ("bucket", "a.b-1250000000", "'a.b-1250000000' is not a valid bucket name."),
        ("bucket", "a-1250000000\x7f", r"'a-1250000000\x7f' is not a valid bucket name."),
        ("bucket", "\u202eb-1250000000", r"'\u202eb-1250000000' is not a valid bucket name."),
        ("bucket", "a-٣٣٣٣٣٣", "'a-٣٣٣٣٣٣' is not a valid bucket name."),
        ("format", "png", "'png' is not a valid format."),
        ("format", "RAW\0", r"'RAW\x00' is not a valid format."),
        ("prefix", "a\x1b[31m", r"'a\x1b[31m' contains a control character, a backslash"),
        ("prefix", "a\\b", r"'a\b' contains a control character, a backslash"),
        ("prefix", "\ud800", r"'\ud800' contains a control character, a backslash or an unpaired"),
        ("prefix", "/a", "'/a' begins with /"),
        ("prefix", "a/../b", "'a/../b' begins with / or has a part that is empty, . or .."),
        ("prefix", "x" * 771, f"'{'x' * 40}…' (771 characters) takes 771 bytes as UTF-8."),
        ("only_root_disk", "maybe", "'maybe' is not a boolean."),
        ("exact_names", "on", "'on' is not a boolean."),
        ("role_name", "a b", "'a b' is not a valid role name."),
        ("role_name", "a/b", "'a/b' is not a valid role name."),
        ("role_name", "r" * 129, f"'{'r' * 40}…' (129 characters) is not a valid role name."),
        ("priority", 1001, "the priority is out of range."),
        ("priority", "-1001", "the priority is out of range."),
        ("priority", "high", "'high' is not a valid priority."),
        pytest.param("priority", 10**5000, "the priority is out of range.", id="huge"),
        ("priority", "9" * 5000, f"'{'9' * 40}…' (5000 characters) is not a valid priority."),
        ("not_before", "tomorrow", "'tomorrow' is not a valid timestamp."),
        (
            "not_before",
            datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=1))),
            "'0001-01-01T00:00:00+01:00' is not a valid timestamp.",
        ),
    ],
)
def test_invalid_value_is_refused(field: str, raw: object, reason: str) -> None:
    """The error names the field, the reason and the remedy, and is safe to print."""
    error = refusal(**{field: raw})
    assert isinstance(error, ValueError)
    assert error.field == field
    assert error.reason.startswith(reason)
    assert error.remedy
    assert str(error) == f"{error.field}: {error.reason}\n  {error.remedy}"
    assert all(line.isprintable() for line in str(error).splitlines())


def test_bucket_and_region_are_checked_together() -> None:
    """Each may be valid alone while the domain that they form is too long."""
    bucket = "a" * 21 + "-1254277702"
    assert made(bucket=bucket, region="ap-beijing").bucket == bucket
    error = refusal(bucket=bucket, region="na-siliconvalley")
    assert error.field == "bucket"
    assert "in na-siliconvalley forms a domain of 66 characters." in error.reason


def test_missing_region_is_reported_before_the_length_of_the_domain() -> None:
    """A missing region is reported before a domain that is too long.

    The length of the domain depends on the region, so it is not checked without one.
    """
    assert refusal(bucket="a" * 60 + "-1254277702", region="").field == "region"


def test_request_cannot_be_changed() -> None:
    """Its fields are frozen, and it has no others."""
    request = made()
    with pytest.raises(FrozenInstanceError):
        request.region = "ap-tokyo"  # type: ignore[misc]  # what is tested
    assert not hasattr(request, "__dict__")
    assert [field.name for field in fields(request)] == list(TYPES)


def test_replace_validates_again() -> None:
    """A changed copy is normalized, or refused, like a new request."""
    request = made(prefix="night", priority=3)
    written: dict[str, Any] = {"format": "vhd", "image_ids": "img-aaaa;img-bbbb"}
    changed = replace(request, **written)
    assert changed == made(
        prefix="night", priority=3, format=ImageFormat.VHD, image_ids=("img-aaaa", "img-bbbb")
    )
    with pytest.raises(InvalidRequestError, match="region: 'Frankfurt' is not a valid region"):
        replace(request, region="Frankfurt")


def test_request_can_be_copied_and_pickled() -> None:
    """A request can be passed between processes."""
    request = made(format="qcow2", not_before="2026-12-31")
    assert copy.deepcopy(request) == pickle.loads(pickle.dumps(request)) == request  # noqa: S301 - our own


def test_error_can_be_pickled() -> None:
    """An error can be passed between processes without a change."""
    error = refusal(region="Frankfurt")
    loaded = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    assert (loaded.field, loaded.reason, loaded.remedy) == (
        "region",
        "'Frankfurt' is not a valid region.",
        "Did you mean eu-frankfurt?",
    )
    assert str(loaded) == str(error)


def test_package_exports_the_error() -> None:
    """The error class is one of the names of the public API."""
    assert orchestrator.InvalidRequestError is InvalidRequestError
    assert "InvalidRequestError" in dir(orchestrator)
