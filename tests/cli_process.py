"""Run the command line as a user does: in its own process, with its own environment."""

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
from anyio.abc import Process

from orchestrator.simulator import DEFAULT_KEY, Key, Simulator


@dataclass(frozen=True)
class CommandResult:
    """The output and the exit code of a command."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The single JSON value on stdout."""
        return json.loads(self.out)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The JSON values on stdout, one per line."""
        return [json.loads(line) for line in self.out.splitlines()]


@dataclass(frozen=True)
class Shell:
    """A working directory and the environment variables of the commands that run in it."""

    folder: Path
    variables: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def for_cloud(
        cls, cloud: Simulator, folder: Path, key: Key = DEFAULT_KEY, **more: str
    ) -> "Shell":
        """Make a shell whose endpoints and keys are those of a simulated cloud."""
        return cls(
            folder,
            {
                "ORCHESTRATOR_CVM_ENDPOINT": cloud.url,
                "ORCHESTRATOR_COS_ENDPOINT": cloud.url,
                "ORCHESTRATOR_STS_ENDPOINT": cloud.url,
                "ORCHESTRATOR_METADATA_ENDPOINT": cloud.url,
                "ORCHESTRATOR_DATABASE_URL": str(folder / "exports.db"),
                "ORCHESTRATOR_VERIFY_INTERVAL": "0.2",
                "TENCENTCLOUD_SECRET_ID": key.secret_id,
                "TENCENTCLOUD_SECRET_KEY": key.secret_key,
                **more,
            },
        )

    async def run(self, *words: str, stdin: bytes = b"") -> CommandResult:
        """Run one command to its end."""
        ended = await anyio.run_process(
            [sys.executable, "-m", "orchestrator", *words],
            input=stdin,
            check=False,
            env=self._environ(),
            cwd=self.folder,
        )
        return CommandResult(ended.returncode, ended.stdout.decode(), ended.stderr.decode())

    async def run_at_terminal(self, *words: str, columns: int) -> str:
        """Run a command at a terminal of this width, and return its first output."""
        ours, theirs = pty.openpty()
        try:
            await anyio.run_process(
                [sys.executable, "-m", "orchestrator", *words],
                stdout=theirs,
                env={**self._environ(), "COLUMNS": str(columns), "NO_COLOR": "1"},
                cwd=self.folder,
            )
            return os.read(ours, 65_536).decode().replace("\r\n", "\n")
        finally:
            os.close(ours)
            os.close(theirs)

    @asynccontextmanager
    async def start(self, *words: str) -> AsyncIterator[Process]:
        """Start a command; kill it at the end of the block if it is still running."""
        process = await anyio.open_process(
            [sys.executable, "-m", "orchestrator", *words],
            env=self._environ(),
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        try:
            yield process
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGKILL)
            with anyio.CancelScope(shield=True):
                await process.aclose()

    def _environ(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
        return {**kept, "HOME": str(self.folder), "PYTHONWARNINGS": "error", **self.variables}


def at_terminal(folder: Path, command: str, variables: Mapping[str, str]) -> bytes:
    """Run a command whose stdout and stderr are a terminal; return what it prints."""
    ours, theirs = pty.openpty()
    environ = {"PATH": os.environ["PATH"], "HOME": str(folder), **variables}
    with subprocess.Popen(
        [sys.executable, "-m", "orchestrator", *command.split()],
        cwd=folder,
        env=environ,
        stdout=theirs,
        stderr=theirs,
    ) as process:
        os.close(theirs)
        printed = b""
        try:
            while piece := os.read(ours, 65_536):
                printed += piece
        except OSError:  # the other end was closed
            pass
        finally:
            os.close(ours)
        assert process.wait() == 0, printed
    return printed


async def wait_for_output(process: Process, words: str) -> str:
    """Wait until a process writes these words to stderr; return its stderr so far."""
    assert process.stderr is not None
    output = ""
    with anyio.fail_after(60):
        while words not in output:
            output += (await process.stderr.receive()).decode()
    return output


async def wait_until(condition: Any, seconds: float = 60.0) -> None:
    """Wait until a condition holds; fail after this many seconds."""
    with anyio.fail_after(seconds):
        while not condition():
            await anyio.sleep(0.01)
