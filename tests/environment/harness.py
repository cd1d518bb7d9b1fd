"""What the faults of the machine are made of: a run at work, and the truth about it afterwards."""

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
    """The store that a shell's commands work on, in this process."""
    where = shell.variables["ORCHESTRATOR_DATABASE_URL"]
    return make_orchestrator(cloud.url, shell.folder, database_url=where)


class RunProcess:
    """A `run` in a process of its own.

    Args:
        process: with its stderr in a pipe.
    """

    def __init__(self, process: Process) -> None:
        self._process = process
        self.said = ""

    def signal(self, number: signal.Signals) -> None:
        """Sends it a signal."""
        self._process.send_signal(number)

    async def wait_for_output(self, words: str) -> None:
        """Returns when these words have been on stderr."""
        assert self._process.stderr is not None
        with anyio.fail_after(2 * MAX_WAIT):
            while words not in self.said:
                self.said += (await self._process.stderr.receive()).decode()

    async def wait_for_exit(self) -> int:
        """Its exit code, when it has ended by itself."""
        assert self._process.stderr is not None
        with anyio.fail_after(2 * MAX_WAIT):
            async for piece in self._process.stderr:
                self.said += piece.decode()
            return await self._process.wait()


@asynccontextmanager
async def start_run(shell: Shell, cloud: Simulator, *options: str) -> AsyncIterator[RunProcess]:
    """A run in the middle of its work: some answers are recorded, others are in the air."""
    async with make_orchestrator_for(shell, cloud) as orchestrator:
        await orchestrator.enqueue(make_requests_for(make_image_ids(COUNT)))
    cloud.set_faults(Fault("latency", action="ExportImages", seconds=0.3))
    async with shell.start("run", *options) as process:
        await wait_until(lambda: len(count_exports(cloud)) >= 10)
        yield RunProcess(process)


async def assert_each_exported_once(shell: Shell, cloud: Simulator) -> None:
    """A further run finds or makes whatever is left; the cloud began each export exactly once."""
    cloud.set_faults()
    async with make_orchestrator_for(shell, cloud) as orchestrator:
        await run_to_end(orchestrator)
        assert await count_states(orchestrator) == {JobState.VERIFIED: COUNT}
    assert count_exports(cloud) == once_each(make_image_ids(COUNT))


async def run_in_bash(shell: Shell, line: str) -> CommandResult:
    """Runs a line of bash in which `orchestrator` is the program."""
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
    """Leaves no room on a folder's disk; gives the file that takes it all."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as stream:
        try:
            while stream.write(b"\0" * 4096):
                pass
        except OSError:
            return ballast
    raise AssertionError("the disk has no end")


def mount_disk(folder: Path, *options: str) -> str:
    """Mounts, or mounts anew, a small disk; says why where that is not possible."""
    command = ["mount", "-t", "tmpfs", *options, "tmpfs", str(folder)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    return ended.stderr.strip()
