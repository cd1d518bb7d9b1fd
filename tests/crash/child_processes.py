"""Child processes for the crash tests, started through a fork server."""

import os
import pickle
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import anyio
from anyio.abc import Process
from anyio.streams.buffered import BufferedByteReceiveStream

from tests.crash.worker_process import WorkerSpec

ROOT = Path(__file__).parents[2]


class ChildProcess:
    """A running worker process."""

    def __init__(self, number: int, answers: BufferedByteReceiveStream) -> None:
        self.pid = number
        self.code: int | None = None
        self._answers = answers

    def kill(self) -> None:
        """Kill the process, if it is still running."""
        if self.code is None:
            with suppress(ProcessLookupError):  # it has ended, and the fork server has reaped it
                os.kill(self.pid, signal.SIGKILL)

    async def wait(self) -> int:
        """Wait for the end; return the exit code, negative for a signal."""
        if self.code is None:
            self.code = int(await self._answers.receive_until(b"\n", 20))
        return self.code


class ForkServer:
    """Starts child processes, one at a time."""

    def __init__(self, process: Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._orders = process.stdin
        self._answers = BufferedByteReceiveStream(process.stdout)

    @asynccontextmanager
    async def start_child(self, spec: WorkerSpec) -> AsyncIterator[ChildProcess]:
        """Start a worker process; kill it at the end of the block if it is still running."""
        await self._orders.send(pickle.dumps(spec).hex().encode() + b"\n")
        child = ChildProcess(int(await self._answers.receive_until(b"\n", 20)), self._answers)
        try:
            yield child
        finally:
            with anyio.CancelScope(shield=True):
                child.kill()
                await child.wait()


@asynccontextmanager
async def start_fork_server() -> AsyncIterator[ForkServer]:
    """Start a fork server: a process that has imported everything."""
    environ = {name: text for name, text in os.environ.items() if "proxy" not in name.lower()}
    async with await anyio.open_process(
        [sys.executable, "-m", "tests.crash.fork_server"],
        cwd=ROOT,
        env=environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=None,
    ) as process:
        try:
            yield ForkServer(process)
        finally:
            process.kill()
