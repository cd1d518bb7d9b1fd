"""Helpers for faults of the machine: a run in progress, and a check of its exports afterwards."""

import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
from anyio.abc import Process

from orchestrator.job_states import JobState
from orchestrator.orchestrator import Orchestrator
from orchestrator.simulator import Fault, Simulator
from tests.cli_process import CommandResult, Shell
from tests.end_to_end.harness import (
    MAX_WAIT,
    count_exports,
    count_states,
    make_image_ids,
    make_orchestrator,
    make_requests_for,
    once_each,
    run_to_end,
    wait_until,
)

COUNT = 24
STORE = "exports.db"


def make_orchestrator_for(shell: Shell, cloud: Simulator) -> Orchestrator:
    """Open the store of a shell's commands in this process."""
    where = shell.variables["ORCHESTRATOR_DATABASE_URL"]
    return make_orchestrator(cloud.url, shell.folder, database_url=where)


class RunProcess:
    """A `run` command in its own process.

    Args:
        process: the process, with stderr in a pipe.
    """

    def __init__(self, process: Process) -> None:
        self._process = process
        self.output = ""

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process."""
        self._process.send_signal(number)

    async def wait_for_output(self, words: str) -> None:
        """Wait until the process has written these words to stderr."""
        assert self._process.stderr is not None
        with anyio.fail_after(2 * MAX_WAIT):
            while words not in self.output:
                self.output += (await self._process.stderr.receive()).decode()

    async def wait_for_exit(self) -> int:
        """Wait until the process ends by itself, and return its exit code."""
        assert self._process.stderr is not None
        with anyio.fail_after(2 * MAX_WAIT):
            async for piece in self._process.stderr:
                self.output += piece.decode()
            return await self._process.wait()


@asynccontextmanager
async def start_run(shell: Shell, cloud: Simulator, *options: str) -> AsyncIterator[RunProcess]:
    """Start a run and wait until at least ten exports have begun.

    By then some answers are recorded, and other requests are in flight.
    """
    async with make_orchestrator_for(shell, cloud) as orchestrator:
        await orchestrator.enqueue(make_requests_for(make_image_ids(COUNT)))
    cloud.set_faults(Fault("latency", action="ExportImages", seconds=0.3))
    async with shell.start("run", *options) as process:
        await wait_until(lambda: len(count_exports(cloud)) >= 10)
        yield RunProcess(process)


async def assert_each_exported_once(shell: Shell, cloud: Simulator) -> None:
    """Run once more, and check that the cloud began each export exactly once."""
    cloud.set_faults()
    async with make_orchestrator_for(shell, cloud) as orchestrator:
        await run_to_end(orchestrator)
        assert await count_states(orchestrator) == {JobState.VERIFIED: COUNT}
    assert count_exports(cloud) == once_each(make_image_ids(COUNT))


async def run_in_bash(shell: Shell, line: str) -> CommandResult:
    """Run a line of bash in which `orchestrator` is the program."""
    program = f'orchestrator() {{ "{sys.executable}" -m orchestrator "$@"; }}; '
    with anyio.fail_after(2 * MAX_WAIT):
        ended = await anyio.run_process(
            ["bash", "-c", program + line],
            check=False,
            env=shell._environ(),
            cwd=shell.folder,
        )
    return CommandResult(ended.returncode, ended.stdout.decode(), ended.stderr.decode())


def fill_disk(folder: Path) -> Path:
    """Fill the file system of a folder; return the file that fills it."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as stream:
        try:
            while stream.write(b"\0" * 4096):
                pass
        except OSError:
            return ballast
    raise AssertionError("the file system did not become full")


def mount_disk(folder: Path, *options: str) -> str:
    """Mount or remount a small file system; return the error, empty on success."""
    command = ["mount", "-t", "tmpfs", *options, "tmpfs", str(folder)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    return ended.stderr.strip()
