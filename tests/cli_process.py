"""The command line as a user's shell runs it: a process of its own, with an environment."""

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
    """What a command printed, and how it ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one JSON value on stdout."""
        return json.loads(self.out)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The JSON values on stdout, one a line."""
        return [json.loads(line) for line in self.out.splitlines()]


@dataclass(frozen=True)
class Shell:
    """A folder to work in, and the variables that are set there."""

    folder: Path
    variables: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def for_cloud(
        cls, cloud: Simulator, folder: Path, key: Key = DEFAULT_KEY, **more: str
    ) -> "Shell":
        """A shell whose endpoints and keys are those of a simulated cloud."""
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
        """Runs one command to its end."""
        ended = await anyio.run_process(
            [sys.executable, "-m", "orchestrator", *words],
            input=stdin,
            check=False,
            env=self._environ(),
            cwd=self.folder,
        )
        return CommandResult(ended.returncode, ended.stdout.decode(), ended.stderr.decode())

    async def run_at_terminal(self, *words: str, columns: int) -> str:
        """What a command with little to say writes to a terminal so wide."""
        ours, its = pty.openpty()
        try:
            await anyio.run_process(
                [sys.executable, "-m", "orchestrator", *words],
                stdout=its,
                env={**self._environ(), "COLUMNS": str(columns), "NO_COLOR": "1"},
                cwd=self.folder,
            )
            return os.read(ours, 65_536).decode().replace("\r\n", "\n")
        finally:
            os.close(ours)
            os.close(its)

    @asynccontextmanager
    async def start(self, *words: str) -> AsyncIterator[Process]:
        """Starts a command, and kills it at the end of the block if it still runs."""
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


async def wait_for_output(process: Process, words: str) -> None:
    """Waits until a process has said these words on stderr."""
    assert process.stderr is not None
    heard = ""
    with anyio.fail_after(60):
        while words not in heard:
            heard += (await process.stderr.receive()).decode()


async def wait_until(condition: Any, seconds: float = 60.0) -> None:
    """Waits until a condition holds; a test that waits longer than this has failed."""
    with anyio.fail_after(seconds):
        while not condition():
            await anyio.sleep(0.01)
