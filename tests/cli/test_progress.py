"""What the progress display prints."""

import textwrap
from datetime import UTC, datetime

import anyio
import pytest

from orchestrator.cli import progress
from orchestrator.cli.progress import ProgressDisplay
from orchestrator.job_states import JobState
from orchestrator.orchestrator import Orchestrator
from orchestrator.reporting.status import Status
from orchestrator.run_warnings import RunWarnings, StoredWarning
from orchestrator.store import Database
from tests.job_factory import make_job, update_job

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def test_text_of_a_server_cannot_control_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """A warning may quote the page of a gateway, or the message of a refusal."""
    ProgressDisplay(None).notify("refused (\x1b[31mno\nWarning: 夜…)")
    assert capsys.readouterr().err == "refused ( [31mno Warning: 夜…)\n"


def test_messages_at_a_terminal_break_between_words(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a log each message is one line."""
    message = "Check that the key exists, and that it is enabled."
    monkeypatch.setenv("COLUMNS", "20")
    for is_live in (False, True):
        display = ProgressDisplay(None)
        display._is_live = is_live
        display.notify(message)
    first, *others = capsys.readouterr().err.splitlines()
    assert first == message
    assert [line.rstrip() for line in others] == textwrap.wrap(message, 20)


def test_warnings_that_hold_stay_in_the_live_display(capsys: pytest.CaptureFixture[str]) -> None:
    """What the run waits for can be read without scrolling up."""
    current = Status(
        at=NOON,
        is_run_active=True,
        counts=dict.fromkeys(JobState, 0) | {JobState.QUEUED: 3},
        scopes=(),
        reasons={"new": 3},
        next_due_at=None,
        vendor=(),
        warnings=(StoredWarning("default", "cvm is down (\x1b[31mno)", NOON, NOON),),
    )
    display = ProgressDisplay(None)
    display._console.print(display._view(current), soft_wrap=True)
    shown = capsys.readouterr().err.splitlines()
    assert shown[-1] == "Warning since 12:00:00Z (default): cvm is down ( [31mno)"


@pytest.mark.anyio
async def test_a_line_of_progress_says_why_jobs_wait(
    sqlite: Database, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a log there is no live display that shows it."""
    monkeypatch.setattr(progress, "_LINE_SECONDS", 0.0)
    await make_job(sqlite, reason="capacity")
    async with (
        Orchestrator(str(sqlite.url), environ={}) as orchestrator,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(ProgressDisplay(None).show, orchestrator)
        shown = ""
        with anyio.fail_after(30):
            while not shown:
                await anyio.lowlevel.checkpoint()
                shown = capsys.readouterr().err
        tasks.cancel_scope.cancel()
    assert shown.startswith("0/1 done (1 queued); elapsed ")
    assert shown.splitlines()[0].endswith("; waiting: 1 capacity")


@pytest.mark.anyio
async def test_an_invalid_batch_is_left_to_the_run(sqlite: Database) -> None:
    """The progress display raises no error for an invalid batch name.

    The run itself refuses the name.
    """
    async with Orchestrator(str(sqlite.url), environ={}) as orchestrator:
        assert await ProgressDisplay("\udcff")._read_status(orchestrator) is None


@pytest.mark.anyio
async def test_finished_batches_of_earlier_runs_are_not_counted(sqlite: Database) -> None:
    """Like the summary, the display leaves out batches that ended before the run.

    A batch that ends during the run stays, and a new one is added.
    """
    await make_job(sqlite, JobState.VERIFIED, batch="yesterday")
    await make_job(sqlite, batch="theirs", profile="other")
    display, job_id = ProgressDisplay(None), await make_job(sqlite, batch="tonight")
    async with Orchestrator(str(sqlite.url), environ={}) as orchestrator:

        async def total() -> int:
            shown = await display._read_status(orchestrator)
            assert shown is not None
            return shown.total

        assert await total() == 1
        await update_job(sqlite, job_id, state=JobState.VERIFIED)
        assert await total() == 1
        await make_job(sqlite, batch="later")
        assert await total() == 2
        assert (await orchestrator.status()).total == 4
        one = ProgressDisplay("yesterday")
        shown = await one._read_status(orchestrator)
    assert shown is not None
    assert shown.counts[JobState.VERIFIED] == shown.total == 1


@pytest.mark.anyio
async def test_progress_shows_no_warnings_of_other_profiles(sqlite_url: str) -> None:
    """Those may be of a run that has ended, and say nothing about this one."""
    async with Orchestrator(sqlite_url, environ={}) as orchestrator:
        database = orchestrator._database
        for profile in ("default", "other"):
            warnings = RunWarnings(database, profile, lambda _sentence: None)
            await warnings.warn("key", f"The warning of {profile}.")
        shown = await ProgressDisplay(None)._read_status(orchestrator)
    assert shown is not None
    assert [warning.message for warning in shown.warnings] == ["The warning of default."]
