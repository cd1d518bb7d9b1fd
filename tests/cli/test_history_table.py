"""The table of jobs, at several widths of the terminal."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from rich.cells import cell_len

from orchestrator.cli.formatting import wrapped
from orchestrator.cli.history import JobTable
from orchestrator.job_states import JobState
from orchestrator.model import ImageFormat
from orchestrator.reporting.history import Job

SENT = datetime(2026, 11, 28, 9, 24, tzinfo=UTC)

VERIFIED = Job(
    id=17,
    batch="20261128-092401-ab12",
    state=JobState.VERIFIED,
    reason="all objects seen",
    region="ap-singapore",
    image_ids=("img-1a2b3c4d",),
    bucket="backup-1250000000",
    format=ImageFormat.RAW,
    prefix="nightly",
    tag="7tbqkpwrua27",
    attempts=1,
    task_id=118034183,
    request_id="1b2c",
    cos_paths=("/nightly-7tbqkpwrua27_img-1a2b3c4d_system_snap-88o60kyt.raw",),
    code=None,
    message=None,
    remedy=None,
    created_at=SENT,
    sent_at=SENT,
    accepted_at=SENT + timedelta(seconds=1),
    finished_at=SENT + timedelta(minutes=32, seconds=5),
    evidence="seen",
    warnings=(),
    only_root_disk=False,
    role_name=None,
    priority=0,
    not_before=None,
    size_gib=250,
)
FAILED = replace(
    VERIFIED,
    state=JobState.FAILED,
    code="InvalidImageId.NotFound",
    message="The image does not exist.",
    remedy="Check the image id and --region: this account has no such image there.",
    cos_paths=(),
    task_id=None,
)


CHINESE = replace(
    FAILED, batch="华东区夜间镜像导出批次-第二轮", remedy="请检查镜像标识和地域。" * 9
)


@pytest.mark.parametrize("width", [40, 60, 80, 100, 140, 200])
@pytest.mark.parametrize("job", [VERIFIED, FAILED, CHINESE], ids=["verified", "failed", "Chinese"])
def test_no_line_is_wider_than_the_terminal(width: int, job: Job) -> None:
    """Heading, row and error fit, and the error is complete."""
    table = JobTable(width)
    lines = [table.heading(), *table.row(job).splitlines()]
    assert max(map(cell_len, lines)) <= width
    if job.code is not None:
        assert f"{job.code}:{job.remedy}".replace(" ", "") in "".join("".join(lines).split())


@pytest.mark.parametrize("width", [80, 140, None])
@pytest.mark.parametrize("batch", ["夜间", "cafe\u0301", "ﾊﾝｶｸ", "a夜间镜像导出批次二"])
def test_columns_are_aligned_beside_wide_characters(width: int | None, batch: str) -> None:
    """Columns stay aligned beside wide characters and combining marks.

    A terminal draws Chinese characters in two columns, and combining marks in none.
    """
    rows = [JobTable(width).row(replace(VERIFIED, batch=one)) for one in ("tonight", batch)]
    assert len({cell_len(row.partition("img-1a2b3c4d")[0]) for row in rows}) == 1
    assert all(batch in row for row in rows[1:])


def test_long_names_are_cut_at_whole_characters() -> None:
    """Half of a wide character cannot be drawn, so a blank may follow."""
    for batch, shown in ((CHINESE.batch, 9), (f"a{CHINESE.batch}", 10)):
        row = JobTable(80).row(replace(VERIFIED, batch=batch))
        assert f"{batch[:shown]}… " in row


def test_text_is_wrapped_at_the_columns_of_a_terminal() -> None:
    """Words stay whole where they fit; lines below the first are indented."""
    assert wrapped("one two three", 9, indent="  ") == ["one two", "  three"]
    assert wrapped("批次夜间 批次", 8, indent="  ") == ["批次夜间", "  批次"]
    assert wrapped("a 批次夜间批次", 8) == ["a", "批次夜间", "批次"]
    assert wrapped("  a   b  c", 8, indent="    ") == ["  a   b", "    c"]
    assert wrapped("a /long/key b", 8, breaks_words=False) == ["a", "/long/key", "b"]
    assert wrapped("", 8) == []


def test_80_columns_show_batch_size_and_duration() -> None:
    """At 80 columns batch, GiB and duration are complete, and the region is left out."""
    table = JobTable(80)
    assert table.heading().split() == ["job", "state", "batch", "image", "GiB", "duration"]
    assert table.row(VERIFIED).split() == [
        *("17", "verified", "20261128-092401-ab12", "img-1a2b3c4d", "250", "32m05s")
    ]


@pytest.mark.parametrize("width", [140, None])
def test_wide_terminals_and_pipes_show_all_columns(width: int | None) -> None:
    """Region, TaskId, time and result are added."""
    heading, row = JobTable(width).heading(), JobTable(width).row(VERIFIED)
    for title in ("region", "task", "updated (UTC)", "result"):
        assert title in heading
    for value in ("ap-singapore", "118034183", "2026-11-28 09:56", "/nightly-7tbqk"):
        assert value in row


def test_a_pipe_gets_one_line_per_job() -> None:
    """Without a terminal nothing is cut, and the error follows on the same line."""
    assert VERIFIED.cos_paths[0] in JobTable(None).row(VERIFIED)
    row = JobTable(None).row(FAILED)
    assert "\n" not in row
    assert row.endswith(f"{FAILED.code}: {FAILED.remedy}")


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (59.6, "1m00s"), (185, "3m05s"), (7800, "2h10m")]
)
def test_duration_is_the_time_from_sending_to_the_end(seconds: float, text: str) -> None:
    """It is written in seconds, minutes or hours."""
    job = replace(VERIFIED, finished_at=SENT + timedelta(seconds=seconds))
    assert text in JobTable(80).row(job).split()


def test_unknown_size_and_duration_are_a_dash() -> None:
    """A queued job that was not described yet has neither."""
    job = replace(VERIFIED, sent_at=None, accepted_at=None, finished_at=None, size_gib=0)
    assert JobTable(80).row(job).split()[-2:] == ["-", "-"]


def test_control_characters_are_replaced() -> None:
    """Text from a manifest or a server cannot control the terminal."""
    assert "\x1b" not in JobTable(80).row(replace(FAILED, batch="\x1b[2J", remedy="\x1b[2J"))
