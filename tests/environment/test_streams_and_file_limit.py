"""Streams that are closed, broken or full, and a limit on open files that is too low."""

import pytest

from orchestrator.simulator import Simulator
from tests.cli_process import Shell
from tests.end_to_end.harness import count_exports, make_image_ids, make_requests_for, once_each
from tests.environment.harness import make_orchestrator_for, run_in_bash

pytestmark = [pytest.mark.anyio, pytest.mark.faults]


@pytest.fixture(autouse=True)
async def _enqueue_three_jobs(shell: Shell, cloud: Simulator) -> None:
    """Enqueue three jobs."""
    async with make_orchestrator_for(shell, cloud) as orchestrator:
        await orchestrator.enqueue(make_requests_for(make_image_ids(3)))


RUNS = {
    "stdout closed": "run >&-",
    "stderr closed": "run 2>&-",
    "all closed": "run <&- >&- 2>&-",
    "stdout on a full disk": "run >/dev/full",
    "stderr on a full disk": "run 2>/dev/full",
    "stdout without a reader": "run | true; exit ${PIPESTATUS[0]}",
    "stderr without a reader": "run 2>&1 >/dev/null | true; exit ${PIPESTATUS[0]}",
}


@pytest.mark.parametrize("line", RUNS.values(), ids=RUNS)
async def test_run_with_unusable_output_streams(shell: Shell, cloud: Simulator, line: str) -> None:
    """A run whose output cannot be written does its work, and its exit code is right."""
    ended = await run_in_bash(shell, f"orchestrator {line}")
    assert (ended.code, "Traceback" in ended.err) == (0, False), ended.err
    is_told = "The summary cannot be written to stdout: No space left on device." in ended.err
    assert is_told is (line == "run >/dev/full")
    assert count_exports(cloud) == once_each(make_image_ids(3))


LISTINGS = {
    "history --json >/dev/full": 1,
    "history --csv >&-": 0,
    "status >&-": 0,
    "status 2>&-": 0,
    "show 1 >/dev/full": 1,
}


async def test_listing_that_cannot_be_written(shell: Shell) -> None:
    """A write error on a full disk is reported and an error; a closed pipe is not."""
    for line, code in LISTINGS.items():
        ended = await run_in_bash(shell, f"orchestrator {line}")
        assert ended.code == code, line
        assert "Traceback" not in ended.err, line
        assert ("The output: No space left on device." in ended.err) is bool(code), line


async def test_low_limit_on_open_files_is_reported(shell: Shell, cloud: Simulator) -> None:
    """A limit that can be too low is reported in advance; it costs time but no image."""
    ended = await run_in_bash(shell, "ulimit -n 40; orchestrator run --rate 0")
    assert ended.code == 0, ended.err
    assert "the hard limit of open files is 40" in ended.err
    assert "raise the hard limit (ulimit -Hn) to 96" in ended.err
    assert count_exports(cloud) == once_each(make_image_ids(3))


async def test_run_refuses_a_far_too_low_limit_on_open_files(
    shell: Shell, cloud: Simulator
) -> None:
    """If a run could wait for files that it holds itself, it does not start."""
    ended = await run_in_bash(shell, "ulimit -n 16; orchestrator run")
    assert ended.code == 2
    assert "The hard limit of open files is 16; a run needs at least 40" in ended.err
    assert "Traceback" not in ended.err
    assert not count_exports(cloud)


async def test_soft_limit_on_open_files_is_raised(shell: Shell) -> None:
    """The soft limit is raised to the hard limit without a message."""
    ended = await run_in_bash(shell, "ulimit -S -n 20; orchestrator run --rate 0")
    assert ended.code == 0
    assert "open files" not in ended.err
