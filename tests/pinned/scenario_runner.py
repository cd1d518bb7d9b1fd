"""Runs the steps of a scenario: a temporary folder, a simulator, and commands as processes."""

import csv
import json
import os
import re
import shlex
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, Self

from tests.pinned.renamed import word_in_use
from tests.pinned.steps import (
    QUICK,
    ChangeSimulator,
    Command,
    Scenario,
    SendSignal,
    StartInBackground,
    Step,
    WaitForExit,
    WaitForOutput,
    WaitForRequests,
)

ROOT = Path(__file__).parents[2]
STORE = "exports.db"

_MAX_WAIT = 120.0
"""Maximum wait in seconds. Only a command that hangs takes this long, on a busy machine too."""

_POLL = 0.02
_ENDPOINTS = ("CVM", "COS", "STS", "METADATA")
_UNREACHABLE = "http://127.0.0.1:9"
"""Nothing listens on the port of the discard service."""

_TRACEBACK = "Traceback (most recent call last)"
_PLACEHOLDER = re.compile(r"\{(tag|task_id):(\d+)\}")


class ScenarioFailedError(Exception):
    """A scenario could not be run to its end."""


@dataclass(frozen=True)
class CommandResult:
    """A command that has ended.

    Args:
        line: as the scenario has it.
        code: exit code; negative is the number of a signal.
        only: the fields of its data that are kept; none given is all.
    """

    line: str
    code: int
    stdout: str
    stderr: str
    only: tuple[str, ...] = ()

    @property
    def outcome(self) -> int | str:
        """The exit code, and what must not come with it."""
        remarks = []
        if _TRACEBACK in self.stderr:
            remarks.append("traceback")
        if self.code == 2 and self.stdout:
            remarks.append("text on stdout")
        return f"{self.code}, {', '.join(remarks)}" if remarks else self.code

    @property
    def data(self) -> Any:
        """The data that the command printed as JSON or CSV.

        It is ``None`` if the command printed nothing, if neither format was requested, or if a
        command with `--json` exited with code 2.
        """
        words = shlex.split(self.line)
        if not self.stdout:
            return None
        if "--csv" in words:
            lines = self.stdout.splitlines()
            return [lines[0].split(","), *csv.DictReader(lines)]
        if "--json" not in words or self.code == 2:
            return None
        found = [json.loads(line) for line in self.stdout.splitlines()]
        return found if words[0] == "history" else found[0]


@dataclass
class _Background:
    """A command in the background, with the files that it writes to."""

    line: str
    process: subprocess.Popen[bytes]
    stdout: Path
    stderr: Path
    answered_from: int = 0
    """Length of stderr when the last signal was sent."""


class ScenarioRunner:
    """The folder, the simulator and the processes of one scenario; all gone after ``with``."""

    def __init__(self, scenario: Scenario, folder: Path) -> None:
        self.folder = folder / "work"
        self.url = _UNREACHABLE
        self.ended: list[CommandResult] = []
        self._scenario = scenario
        self._simulator_files = folder / "simulator"
        self._ledger = self._simulator_files / "ledger.jsonl"
        self._environ: dict[str, str] = {}
        self._background: dict[str, _Background] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self.folder.mkdir()
        self._simulator_files.mkdir()
        for name, content in self._scenario.files.items():
            raw = content if isinstance(content, bytes) else content.encode()
            (self.folder / name).write_bytes(raw)
        for name, script in self._scenario.stores.items():
            _make_store(self.folder / name, script)
        self._environ = {
            **{name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ},
            "HOME": str(self.folder),
            "TMPDIR": str(self.folder),
            "PYTHONPATH": str(ROOT),
        }
        with ExitStack() as stack:
            stack.callback(self._end_background)
            variables = {f"ORCHESTRATOR_{name}_ENDPOINT": _UNREACHABLE for name in _ENDPOINTS}
            if self._scenario.cloud is not None:
                variables = stack.enter_context(self._simulator(self._scenario.cloud))
                self.url = variables["ORCHESTRATOR_CVM_ENDPOINT"]
            short = {
                "ORCHESTRATOR_DATABASE_URL": str(self.folder / STORE),
                "ORCHESTRATOR_RATE": "0",
                "ORCHESTRATOR_VERIFY_INTERVAL": "0.2",
                "ORCHESTRATOR_RESEND_AFTER": "1",
            }
            self._environ |= {**variables, **short, **self._scenario.variables}
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def execute(self, step: Step) -> None:
        """Take one step of the scenario.

        Raises:
            ScenarioFailedError: what it waits for does not happen.
        """
        match step:
            case Command():
                ended = self.run(step.line, step.stdin, step.variables, step.only)
                self.ended.append(ended)
            case StartInBackground():
                self._start(step)
            case WaitForRequests():
                self._wait(lambda: self._arrived(step) >= step.count, step)
            case SendSignal():
                self._send(step)
            case WaitForOutput():
                one = self._background[step.name]
                self._wait(lambda: one.stderr.stat().st_size > one.answered_from, step)
            case WaitForExit():
                self._finish(step.name)
            case ChangeSimulator():
                self._change(step.settings)

    def run(
        self,
        line: str,
        stdin: str = "",
        variables: Mapping[str, str | None] | None = None,
        only: tuple[str, ...] = (),
    ) -> CommandResult:
        """Run a command to its end."""
        given = {word_in_use(name): value for name, value in (variables or {}).items()}
        environ = {**self._environ, **given}
        try:
            done = subprocess.run(
                self._words(line),
                input=stdin.encode(),
                capture_output=True,
                check=False,
                cwd=self.folder,
                env={name: value for name, value in environ.items() if value is not None},
                timeout=_MAX_WAIT,
            )
        except subprocess.TimeoutExpired as error:
            raise ScenarioFailedError(f"`{line}` did not end in {_MAX_WAIT:g} s") from error
        return CommandResult(
            line, done.returncode, done.stdout.decode(), done.stderr.decode(), only
        )

    def ledger(self) -> list[dict[str, Any]]:
        """Return the requests that have arrived at the simulator, in order."""
        if not self._ledger.exists():
            return []
        lines = self._ledger.read_text(encoding="utf-8").splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def _words(self, line: str) -> list[str]:
        filled = _PLACEHOLDER.sub(lambda found: self._field(found[1], found[2]), line)
        words = [word_in_use(word) for word in shlex.split(filled)]
        return [sys.executable, "-m", "orchestrator", *words]

    def _field(self, name: str, job: str) -> str:
        return str(self.run(f"show {job} --json").data[name])

    def _start(self, step: StartInBackground) -> None:
        out, err = (self.folder / f"{step.name}.{stream}" for stream in ("stdout", "stderr"))
        with out.open("wb") as stdout, err.open("wb") as stderr:
            process = subprocess.Popen(
                self._words(step.line),
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                cwd=self.folder,
                env=self._environ,
            )
        self._background[step.name] = _Background(step.line, process, out, err)

    def _send(self, step: SendSignal) -> None:
        one = self._background[step.name]
        if one.process.poll() is not None:
            raise ScenarioFailedError(f"`{one.line}` ended too soon: {one.stderr.read_text()}")
        one.answered_from = one.stderr.stat().st_size
        one.process.send_signal(step.number)

    def _finish(self, name: str) -> None:
        one = self._background[name]
        try:
            code = one.process.wait(_MAX_WAIT)
        except subprocess.TimeoutExpired as error:
            raise ScenarioFailedError(f"`{one.line}` did not end in {_MAX_WAIT:g} s") from error
        line = f"{one.line} ({name})"
        self.ended.append(CommandResult(line, code, one.stdout.read_text(), one.stderr.read_text()))

    def _end_background(self) -> None:
        for one in self._background.values():
            if one.process.poll() is None:
                one.process.kill()
            one.process.wait()

    def _arrived(self, step: WaitForRequests) -> int:
        return sum(
            entry["action"] == step.action
            and (entry["accepted"] or not step.accepted)
            and (step.fault is None or entry["fault"] == step.fault)
            for entry in self.ledger()
        )

    def _wait(self, holds: Callable[[], bool], step: Step) -> None:
        given_up_at = time.monotonic() + _MAX_WAIT
        while not holds():
            if all(one.process.poll() is not None for one in self._background.values()):
                if holds():
                    return
                raise ScenarioFailedError(f"the commands ended before {step} came true")
            if time.monotonic() > given_up_at:
                raise ScenarioFailedError(f"{step} did not come true in {_MAX_WAIT:g} s")
            time.sleep(_POLL)

    @contextmanager
    def _simulator(self, settings: Mapping[str, Any]) -> Iterator[dict[str, str]]:
        """Run the simulator; yields the variables that lead a command there."""
        scenario, errors = (self._simulator_files / name for name in ("scenario.json", "stderr"))
        scenario.write_text(json.dumps({**QUICK, **settings}), encoding="utf-8")
        seed, ledger = str(self._scenario.seed), str(self._ledger)
        options = ("--seed", seed, "--scenario", str(scenario), "--ledger", ledger)
        with (
            errors.open("wb") as stderr,
            subprocess.Popen(
                [sys.executable, "-m", "orchestrator", "simulate", *options],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr,
                cwd=self._simulator_files,
                env=self._environ,
                text=True,
            ) as process,
        ):
            try:
                assert process.stdout is not None
                variables = _exported(process.stdout)
                if "TENCENTCLOUD_SECRET_KEY" not in variables:
                    raise ScenarioFailedError(f"no simulator: {errors.read_text()}")
                yield variables
            finally:
                process.terminate()

    def _change(self, settings: Mapping[str, Any]) -> None:
        connection = HTTPConnection(self.url.removeprefix("http://"), timeout=_MAX_WAIT)
        try:
            connection.request("POST", "/_simulator/settings", json.dumps(settings))
            answer = connection.getresponse()
            text = answer.read().decode()
        finally:
            connection.close()
        if answer.status != 200:
            raise ScenarioFailedError(f"the simulator refuses {settings}: {text}")


def _exported(lines: Iterator[str]) -> dict[str, str]:
    """Read the lines ``export NAME=value`` up to the last variable."""
    variables: dict[str, str] = {}
    for line in lines:
        name, _, value = line.removeprefix("export ").strip().partition("=")
        variables[name] = value
        if name == "TENCENTCLOUD_SECRET_KEY":
            break
    return variables


def _make_store(path: Path, script: str) -> None:
    connection = sqlite3.connect(path)
    try:
        connection.executescript(script)
    finally:
        connection.close()
