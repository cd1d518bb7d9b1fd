"""Standard streams that are closed, broken or full, and a low limit on open files."""

import pytest

from orchestrator.simulator import Simulator
from tests.command import Shell
from tests.end_to_end.scene import accepted, images, once_each, orders
from tests.environment.scene import in_bash, store_of

pytestmark = [pytest.mark.anyio, pytest.mark.faults]


@pytest.fixture(autouse=True)
async def _three_jobs(shell: Shell, cloud: Simulator) -> None:
    """Enqueue three jobs."""
    async with store_of(shell, cloud) as orchestrator:
        await orchestrator.enqueue(orders(images(3)))


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
async def test_a_run_with_unusable_streams(shell: Shell, cloud: Simulator, line: str) -> None:
    """A run whose output cannot be written does its work, and its exit code shows the result."""
    ended = await in_bash(shell, f"orchestrator {line}")
    assert (ended.code, "Traceback" in ended.err) == (0, False), ended.err
    assert accepted(cloud) == once_each(images(3))


LISTINGS = {
    "history --json >/dev/full": 1,
    "history --csv >&-": 0,
    "status >&-": 0,
    "status 2>&-": 0,
    "show 1 >/dev/full": 1,
}


async def test_listings_that_cannot_be_written(shell: Shell) -> None:
    """Output lost on a full disk is an error with a message; a closed stream is not an error."""
    for line, code in LISTINGS.items():
        ended = await in_bash(shell, f"orchestrator {line}")
        assert ended.code == code, line
        assert "Traceback" not in ended.err, line
        assert ("The output: No space left on device." in ended.err) is bool(code), line


async def test_too_few_files(shell: Shell, cloud: Simulator) -> None:
    """A limit that may be too low is reported at the start; all images are exported."""
    ended = await in_bash(shell, "ulimit -n 40; orchestrator run --rate 0")
    assert ended.code == 0, ended.err
    assert "This process may have 40 files open" in ended.err
    assert "ulimit -n 96" in ended.err
    assert accepted(cloud) == once_each(images(3))


async def test_far_too_few_files(shell: Shell, cloud: Simulator) -> None:
    """With a limit so low that a run might wait for its own files, it does not start."""
    ended = await in_bash(shell, "ulimit -n 16; orchestrator run")
    assert ended.code == 2
    assert "may have 16 files open; a run needs 40 at least" in ended.err
    assert "Traceback" not in ended.err
    assert not accepted(cloud)


async def test_a_soft_limit_is_raised(shell: Shell) -> None:
    """The soft limit is raised up to the hard limit without a message."""
    ended = await in_bash(shell, "ulimit -S -n 20; orchestrator run --rate 0")
    assert ended.code == 0
    assert "files open" not in ended.err
