"""A worker process that drains a store; it can kill or suspend itself at a chosen moment.

A listener on the engine kills the process, so that the product needs no hook for the tests.
"""

import itertools
import os
import signal
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import sqlalchemy as sa

from orchestrator.cloud import clock_skew
from orchestrator.model import Outcome
from orchestrator.worker import attempt, worker
from tests.end_to_end.harness import make_orchestrator

CLAIM = "INSERT INTO attempts"
RECORD = "UPDATE attempts"
FINDING = "excluded.seen_at"


@dataclass(frozen=True)
class KillPoint:
    """The moment at which a process kills itself with SIGKILL.

    Args:
        number: which of the matching moments, from 1.
        instead_of: a commit, or a statement; in both cases nothing of the transaction is stored.
        statement: only transactions with a statement that contains this text count.
    """

    number: int
    instead_of: Literal["commit", "statement"] = "commit"
    statement: str = ""


@dataclass(frozen=True)
class WorkerSpec:
    """What a worker process is to do.

    Args:
        url: URL of the cloud.
        folder: folder of the store.
        settings: settings of the program, besides those that shorten waits.
        kill_point: when it kills itself.
        suspends: whether it suspends itself (SIGSTOP) between its first claim and the request.
        lease: duration of a lease in seconds; ``None`` is the default.
        signature_lifetime: assumed lifetime of a signature in seconds; ``None`` is the default.
    """

    url: str
    folder: Path
    settings: dict[str, Any] = field(default_factory=dict)
    kill_point: KillPoint | None = None
    suspends: bool = False
    lease: float | None = None
    signature_lifetime: float | None = None


async def run_worker(spec: WorkerSpec) -> None:
    """Drain the store until nothing can move, or the kill point is reached."""
    if spec.kill_point is not None:
        _install_kill_point(spec.kill_point)
    if spec.suspends:
        _suspend_before_send()
    if spec.signature_lifetime is not None:
        clock_skew.SIGNATURE_LIFETIME = timedelta(seconds=spec.signature_lifetime)
    async with make_orchestrator(spec.url, spec.folder, **spec.settings) as orchestrator:
        if spec.lease is not None:
            lease = timedelta(seconds=spec.lease)
            worker._LEASE_SPARE = lease - orchestrator.settings.request_timeout
        # for the log that a failed test shows
        print(await orchestrator.run(), flush=True)  # noqa: T201


def _suspend_before_send() -> None:
    parts = vars(attempt)
    send = parts["submit"]

    async def submit(*request: Any) -> Outcome:
        parts["submit"] = send
        os.kill(os.getpid(), signal.SIGSTOP)
        outcome: Outcome = await send(*request)
        return outcome

    parts["submit"] = submit


def _install_kill_point(kill_point: KillPoint) -> None:
    numbers = itertools.count(1)

    def kill_if_due(moment: str) -> None:
        if moment == kill_point.instead_of and next(numbers) == kill_point.number:
            os.kill(os.getpid(), signal.SIGKILL)

    @sa.event.listens_for(sa.Engine, "begin")
    def _begun(connection: sa.Connection) -> None:
        connection.info["counts"] = False

    @sa.event.listens_for(sa.Engine, "before_cursor_execute")
    def _executed(connection: sa.Connection, _cursor: object, text: str, *_rest: Any) -> None:
        if kill_point.statement in text:
            connection.info["counts"] = True
            kill_if_due("statement")

    @sa.event.listens_for(sa.Engine, "commit")
    def _committed(connection: sa.Connection) -> None:
        if connection.info.get("counts"):
            kill_if_due("commit")
