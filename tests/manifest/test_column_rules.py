"""The rules of each column, which are the same for flags, CSV, JSON and ExportRequest."""

from datetime import UTC, datetime

import pytest

from orchestrator.manifest.column_rules import MAX_PREFIX, check, check_domain
from orchestrator.manifest.problems import Problem, quoted
from orchestrator.model import ImageFormat


@pytest.mark.parametrize(
    ("column", "raw", "value"),
    [
        ("image_id", "img-1a2b3c4d", ("img-1a2b3c4d",)),
        ("image_id", "img-" + "a" * 32, ("img-" + "a" * 32,)),
        ("image_ids", "img-aaaa;img-bbbb", ("img-aaaa", "img-bbbb")),
        ("image_ids", [" img-aaaa"], ("img-aaaa",)),
        ("region", "ap-singapore", "ap-singapore"),
        ("region", "xx-nobody-knows-2", "xx-nobody-knows-2"),
        ("region", "ap-tianjin", "ap-tianjin"),
        ("region", "ap-shenzhen-fsi", "ap-shenzhen-fsi"),
        ("region", "ap-hongkong-ec", "ap-hongkong-ec"),
        ("region", "AP-Singapore", "ap-singapore"),
        ("region", " ap-tokyo\t", "ap-tokyo"),
        ("bucket", "a-12345", "a-12345"),
        ("bucket", "1-b--c-1250000000", "1-b--c-1250000000"),
        ("format", "qCow2", ImageFormat.QCOW2),
        ("prefix", "=1+1", "=1+1"),
        ("prefix", "夜/a b.c/..d", "夜/a b.c/..d"),
        ("prefix", "x" * 770, "x" * 770),
        ("only_root_disk", "YES", True),
        ("only_root_disk", "0", False),
        ("only_root_disk", True, True),
        ("only_root_disk", "TRUE", True),
        ("only_root_disk", "FALSE", False),
        ("only_root_disk", "0.0", False),
        ("only_root_disk", 1, True),
        ("only_root_disk", 0.0, False),
        ("role_name", "CVM_QcsRole", "CVM_QcsRole"),
        ("priority", "-1000", -1000),
        ("priority", "+7", 7),
        ("priority", 1000, 1000),
        ("priority", "5.0", 5),
        ("priority", "-3.", -3),
        ("priority", 5.0, 5),
        ("prefix", ["night", " night"], "night"),
        ("prefix", [], ""),
        ("not_before", "2026-12-31T22:00:00Z", datetime(2026, 12, 31, 22, tzinfo=UTC)),
        ("not_before", "2026-12-31 22:00", datetime(2026, 12, 31, 22, tzinfo=UTC)),
        ("not_before", "2026-12-31T22:00:00-02:00", datetime(2027, 1, 1, tzinfo=UTC)),
        ("not_before", "2026/11/3 2:00", datetime(2026, 11, 3, 2, tzinfo=UTC)),
        ("not_before", "2026/11/30", datetime(2026, 11, 30, tzinfo=UTC)),
        ("not_before", "2026.11.30 02:00:30", datetime(2026, 11, 30, 2, 0, 30, tzinfo=UTC)),
        ("not_before", "2026/11/30 2:00 +08:00", datetime(2026, 11, 29, 18, tzinfo=UTC)),
        ("not_before", "2026-11-30 02:00:00 UTC", datetime(2026, 11, 30, 2, tzinfo=UTC)),
        ("image_id", "\u200bimg-aaaa\u00a0", ("img-aaaa",)),
        ("image_id", "ｉｍｇ－ａａ１１", ("img-aa11",)),
        ("region", "ａｐ－ｓｉｎｇａｐｏｒｅ", "ap-singapore"),
        ("bucket", "backup－１２５０００００００", "backup-1250000000"),
        ("format", "ＱＣＯＷ２", ImageFormat.QCOW2),
        ("only_root_disk", "Ｙｅｓ", True),
        ("role_name", "ＣＶＭ＿ＱｃｓＲｏｌｅ", "CVM_QcsRole"),
        ("priority", "－５", -5),
        ("not_before", "２０２６／１１／３　２：００", datetime(2026, 11, 3, 2, tzinfo=UTC)),
        ("prefix", "Ａ；，、１", "Ａ；，、１"),
        ("region", "\ufeffap-tokyo\u3000", "ap-tokyo"),
    ],
)
def test_valid_value_is_normalized(column: str, raw: object, value: object) -> None:
    """A value that the vendor may accept is returned in its normalized form."""
    assert check(column, raw) == value


@pytest.mark.parametrize(
    ("column", "raw", "reason"),
    [
        ("image_id", "img-AAAA", "'img-AAAA' is not a valid image id."),
        ("image_id", "ami-12345678", "'ami-12345678' is not a valid image id."),
        ("image_id", "img-aaaa;img-bbbb", "'img-aaaa;img-bbbb' is not a valid image id."),
        ("image_id", "img-aaaa\nimg-bbbb", r"'img-aaaa\nimg-bbbb' is not a valid image id."),
        ("image_id", "img-" + "a" * 33, "'img-" + "a" * 33 + "' is not a valid image id."),
        ("image_id", "@SUM(A1)", "'@SUM(A1)' is not a valid image id."),
        ("image_id", 5, "has the wrong type (a number)."),
        ("image_id", ["img-aaaa"], "has the wrong type (a list)."),
        ("image_ids", ";", "contains no image id."),
        ("image_ids", [], "contains no image id."),
        ("image_ids", [None], "has the wrong type (null)."),
        ("image_ids", {}, "has the wrong type (an object)."),
        ("image_ids", ["img-aaaa;img-bbbb"], "'img-aaaa;img-bbbb' is not a valid image id."),
        ("image_ids", ["img-aaaa", "img-aaaa"], "img-aaaa is listed twice in one request."),
        ("region", "=cmd|' /C calc'!A0", "'=cmd|' /C calc'!A0' is not a valid region."),
        ("region", "a" * 10_000, f"'{'a' * 40}…' (10000 characters) is not a valid region."),
        ("region", "ap-" + "a" * 30, f"'ap-{'a' * 30}' is not a valid region."),
        ("region", {"id": 1}, "has the wrong type (an object)."),
        ("bucket", "backup", "'backup' has no APPID at its end."),
        ("bucket", "backup-2026", "'backup-2026' has no APPID at its end."),
        ("bucket", "1250000000", "'1250000000' has no APPID at its end."),
        ("bucket", "-backup-1250000000", "'-backup-1250000000' is not a valid bucket name."),
        ("bucket", "Backup-1250000000", "'Backup-1250000000' is not a valid bucket name."),
        ("bucket", "“backup-1250000000”", "'“backup-1250000000”' is in typographic quotes."),
        ("region", "ap-singapor", "'ap-singapor' is not a valid region."),
        ("region", "ap-singapore-1", "'ap-singapore-1' is a zone, not a region."),
        ("region", "ap-shenzhen-fsi-1", "'ap-shenzhen-fsi-1' is a zone, not a region."),
        ("image_id", "img-aa\u200baa", r"'img-aa\u200baa' is not a valid image id."),
        ("prefix", ["a", "b"], "has 2 different prefixes for one request."),
        ("prefix", ["a", 5], "has the wrong type (a number)."),
        ("format", "png", "'png' is not a valid format."),
        ("prefix", "a\x1b[31m", r"'a\x1b[31m' contains a control character"),
        ("prefix", "a\\b", r"'a\b' contains a control character, a backslash"),
        ("prefix", "\ud800", r"'\ud800' contains a control character, a backslash or an unp"),
        ("prefix", "/a", "'/a' begins with /"),
        ("prefix", "a//b", "'a//b' begins with / or has a part that is empty"),
        ("prefix", "a/../b", "'a/../b' begins with / or has a part that is empty, . or .."),
        ("prefix", ".", "'.' begins with / or has a part that is empty, . or .."),
        ("prefix", "é" * 386, f"'{'é' * 40}…' (386 characters) takes 772 bytes as UTF-8."),
        ("only_root_disk", "maybe", "'maybe' is not a boolean."),
        ("only_root_disk", 2, "has the wrong type (a number)."),
        ("role_name", "a b", "'a b' is not a valid role name."),
        ("role_name", "r" * 129, f"'{'r' * 40}…' (129 characters) is not a valid role name."),
        ("priority", "high", "'high' is not a valid priority."),
        ("priority", "1001", "the priority is out of range."),
        ("priority", -1001, "the priority is out of range."),
        pytest.param("priority", 10**5000, "the priority is out of range.", id="huge"),
        ("priority", "٣", "'٣' is not a valid priority."),
        ("priority", "⑤", "'⑤' is not a valid priority."),
        ("priority", 1.5, "1.5 is not a valid priority."),
        ("priority", "1,000", "'1,000' is not a valid priority."),
        ("priority", True, "has the wrong type (a boolean)."),
        ("not_before", "tomorrow", "'tomorrow' is not a valid timestamp."),
        ("not_before", "30.11.2026", "'30.11.2026' is not a valid timestamp."),
        ("not_before", "11/30/2026 2:00", "'11/30/2026 2:00' is not a valid timestamp."),
        ("not_before", "2026/11-30", "'2026/11-30' is not a valid timestamp."),
        ("not_before", "2026/02/30", "'2026/02/30' is not a valid timestamp."),
        (
            "not_before",
            "0001-01-01T00:00:00+14:00",
            "'0001-01-01T00:00:00+14:00' is not a valid timestamp.",
        ),
        ("not_before", 20261231, "has the wrong type (a number)."),
    ],
)
def test_invalid_value_is_refused_with_reason_and_remedy(
    column: str, raw: object, reason: str
) -> None:
    """The reason quotes the value, short and safe to print, and there is a remedy."""
    problem = check(column, raw)
    assert isinstance(problem, Problem)
    assert problem.reason.startswith(reason)
    assert problem.remedy


@pytest.mark.parametrize("comma", [",", "，", "、"])
def test_comma_between_images_is_named(comma: str) -> None:
    """The remedy for a comma between ids is a semicolon or a row for each image.

    In a list of ids, a comma begins another request.
    """
    remedy = (
        f"Instead of {comma} write ; in image_ids for one request, or use a row for each image."
    )
    for column in ("image_id", "image_ids"):
        problem = check(column, f"img-aaaa{comma}img-bbbb")
        assert isinstance(problem, Problem)
        assert problem.remedy.startswith(remedy)


def test_comma_between_cells_is_not_taken_for_a_list() -> None:
    """The header has other delimiters than this row, so a semicolon would not help."""
    problem = check("image_id", "img-1a2b3c4d，ap-singapore，backup-1250000000")
    assert isinstance(problem, Problem)
    assert problem.remedy == "Separate the cells of a row with the delimiter of the header, not ，."


def test_bucket_without_appid_has_its_own_remedy() -> None:
    """The remedy for the most frequent mistake says what to append."""
    problem = check("bucket", "backup")
    assert isinstance(problem, Problem)
    assert "Append - and the account's APPID" in problem.remedy


@pytest.mark.parametrize(
    ("address", "remedy"),
    [
        ("cos://b-1250000000", "Write 'b-1250000000' alone."),
        ("cos://b-1250000000/", "Write 'b-1250000000' alone."),
        ("cos://b-1250000000/night/x", "Write 'b-1250000000' alone, and 'night/x' as the prefix."),
        (
            "https://b-1250000000.cos.ap-singapore.myqcloud.com/x",
            "Write 'b-1250000000' alone, and 'x' as the prefix.",
        ),
        ("b-1250000000.cos.ap-singapore.myqcloud.com", "Write 'b-1250000000' alone."),
        ("https://cos.ap-singapore.myqcloud.com/b-1250000000", "Write 'b-1250000000' alone."),
        ("cos://b", "Use the bucket's name alone, with the APPID last, as in backup-1250000000."),
    ],
)
def test_address_of_a_bucket_is_refused_with_the_name_in_it(address: str, remedy: str) -> None:
    """The remedy is what to write instead."""
    assert check("bucket", address) == Problem(
        "is an address, and not the name of a bucket.", remedy
    )


def test_signed_address_of_a_bucket_is_not_shown() -> None:
    """The query of such a URL holds a signature."""
    problem = check("bucket", "https://b-1250000000.cos.x.myqcloud.com/?q-signature=hidden")
    assert isinstance(problem, Problem)
    assert "hidden" not in problem.reason + problem.remedy


@pytest.mark.parametrize(
    ("name", "suggested"),
    [
        ("sg", "ap-singapore"),
        ("Singapore", "ap-singapore"),
        ("新加坡", "ap-singapore"),
        ("ap-singapor", "ap-singapore"),
        ("ap-singpore", "ap-singapore"),
        ("ap-singaporre", "ap-singapore"),
        ("ap-shangahi", "ap-shanghai"),
        ("pa-tokyo", "ap-tokyo"),
        ("apsingapore", "ap-singapore"),
        ("na-silicon-valley", "na-siliconvalley"),
        ("ap-tokio", "ap-tokyo"),
        ("ap-hong-kong", "ap-hongkong"),
        ("me-riyadh", "me-saudi-arabia"),
        ("Frankfurt", "eu-frankfurt"),
    ],
)
def test_wrong_region_names_the_nearest(name: str, suggested: str) -> None:
    """Short names, names of cities and misspelled ids lead to the id."""
    problem = check("region", name)
    assert isinstance(problem, Problem)
    assert problem.remedy == f"Did you mean {suggested}?"


@pytest.mark.parametrize(
    "name",
    [
        *("ap-hangzhou", "ap-nanning", "ap-chengde", "ap-shanxi", "ap-changdu", "ap-beihai"),
        *("ap-guangzhou-ec", "ap-singapore-b", "eu-frankfort", "na-ashland", "sa-santiago"),
    ],
)
def test_region_that_resembles_a_known_one_is_accepted(name: str) -> None:
    """The vendor may open it: places have similar names."""
    assert check("region", name) == name


def test_zone_names_its_region() -> None:
    """A zone is a region with a number; people copy it from an instance."""
    problem = check("region", "AP-Singapore-3")
    assert isinstance(problem, Problem)
    assert problem.remedy == "Write ap-singapore."


def test_bucket_and_region_share_the_sixty_characters_of_a_domain() -> None:
    """The longest bucket name depends on the region.

    The vendor limits the whole domain. The longest name in the vendor's own documentation forms a
    domain of exactly sixty characters.
    """
    bucket = "a" * 21 + "-1254277702"
    assert check_domain(bucket, "ap-beijing") is None
    problem = check_domain(bucket, "na-siliconvalley")
    assert problem is not None
    assert "a domain of 66 characters" in problem.reason


def test_key_with_the_longest_prefix_fits_into_cos() -> None:
    """The longest key with the longest prefix has the length that COS allows."""
    longest = "x" * MAX_PREFIX
    key = f"{longest}-{'t' * 12}_img-{'i' * 32}_system_snap-{'s' * 11}.qcow2"
    assert len(key) == 850


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("plain", "'plain'"),
        ("tab\tnul\0bell\x07", r"'tab\tnul\x00bell\x07'"),
        ("turned\u202earound", r"'turned\u202earound'"),
        ("lost\udcff", r"'lost\udcff'"),
        ("夜", "'夜'"),
        ("x" * 41, f"'{'x' * 40}…' (41 characters)"),
    ],
)
def test_quoted_value_is_safe_to_print(value: str, shown: str) -> None:
    """Characters that do not print are escaped, and a long value is cut."""
    assert quoted(value) == shown
