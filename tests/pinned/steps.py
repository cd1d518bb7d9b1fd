"""What a scenario consists of: the simulator's settings, files, and steps in their order."""

import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

ACCEPTED_EXPORTS: Final = "accepted_exports"
"""Number of exports that the simulator accepted for each image: more than asked for is a double."""

FINAL_STATES: Final = "final_states"
"""State of each job after the last step."""

EXIT_CODES: Final = "exit_codes"
"""Exit code of each command."""

OUTPUT: Final = "output"
"""Data of each command that printed JSON or CSV."""

HISTORY: Final = "history"
"""Line of each job in `history --json` after the last step."""

EVENTS: Final = "events"
"""Events of each job in `show --json` after the last step: kind, state before, state after."""

REQUESTS: Final = "requests"
"""How often each ExportImages request arrived at the simulator."""

OTHER_REQUESTS: Final = "other_requests"
"""The same of the other requests to APIs: descriptions of images, and temporary keys."""

LOOKUPS: Final = "lookups"
"""Which kinds of looks into buckets arrived, and how they were answered. How many there are depends
on the speed of the machine, and so does whether uploads are listed, which is left out."""

PARTS = (
    *(EXIT_CODES, OUTPUT, FINAL_STATES, ACCEPTED_EXPORTS),
    *(HISTORY, EVENTS, REQUESTS, OTHER_REQUESTS, LOOKUPS),
)
"""Parts of a recording, in the order in which they are written."""

ALWAYS = frozenset({FINAL_STATES, ACCEPTED_EXPORTS})
"""Parts that every scenario compares."""


@dataclass(frozen=True)
class Command:
    """Run a command to its end.

    Args:
        line: as in a shell; ``{tag:N}`` and ``{task_id:N}`` stand for those of job N.
        stdin: what it can read.
        variables: besides those of the scenario; ``None`` unsets one.
        only: the fields of its data that are kept; none given is all.
    """

    line: str
    stdin: str = ""
    variables: Mapping[str, str | None] = field(default_factory=dict)
    only: tuple[str, ...] = ()


@dataclass(frozen=True)
class StartInBackground:
    """Start a command in the background; its name is for the steps that follow."""

    name: str
    line: str


@dataclass(frozen=True)
class WaitForRequests:
    """Wait until the simulator has received this number of requests of a kind.

    Args:
        count: of all such requests since the start of the scenario.
        accepted: only requests with which an export began.
        fault: only requests that met this fault, as the ledger names it.
    """

    count: int
    action: str = "ExportImages"
    accepted: bool = False
    fault: str | None = None


@dataclass(frozen=True)
class SendSignal:
    """Send a signal to a background command."""

    name: str
    number: signal.Signals


@dataclass(frozen=True)
class WaitForOutput:
    """Wait until a background command has written to stderr since its last signal."""

    name: str


@dataclass(frozen=True)
class WaitForExit:
    """Wait until a background command has ended, and record how."""

    name: str


@dataclass(frozen=True)
class ChangeSimulator:
    """Change settings of the simulator while it runs."""

    settings: Mapping[str, Any]


Step = (
    Command
    | StartInBackground
    | WaitForRequests
    | SendSignal
    | WaitForOutput
    | WaitForExit
    | ChangeSimulator
)


@dataclass(frozen=True)
class Scenario:
    """One story to record.

    Args:
        cloud: settings of the simulator, over `QUICK`; ``None`` starts no simulator, and then
            nothing listens at the endpoints.
        files: by name, in the folder where the commands run.
        stores: SQL that makes a SQLite file, by the file's name.
        variables: environment variables of all commands.
        seed: of all that the simulator leaves to chance.
        compare: the parts that are the same in every run, besides those in `ALWAYS`.
    """

    name: str
    steps: tuple[Step, ...]
    cloud: Mapping[str, Any] | None = field(default_factory=dict)
    files: Mapping[str, str | bytes] = field(default_factory=dict)
    stores: Mapping[str, str] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)
    seed: int = 1
    compare: frozenset[str] = frozenset(PARTS)

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts to record, in order."""
        return tuple(part for part in PARTS if part in self.compare | ALWAYS)


QUICK: Mapping[str, Any] = {
    "cap": None,
    "limits": {"ExportImages": 0, "DescribeImages": 0},
    "duration": {"seconds": 0.3},
    "queue_delay": 0.01,
}
"""A simulator without limits, whose exports take a moment."""
