"""One life of a process that drains a store; it may be told to kill itself at a commit.

The killing stands here, in a listener on the engine, so that the product needs no hook for it.
"""

import itertools
import os
import signal
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import sqlalchemy as sa

from orchestrator.job_queue import orphan_recovery as recover_orphans
from orchestrator.model import Outcome
from orchestrator.worker import worker
from tests.end_to_end.harness import make_orchestrator

CLAIM = "INSERT INTO attempts"
RECORD = "UPDATE attempts"
FINDING = "excluded.seen_at"


@dataclass(frozen=True)
class KillPoint:
    """The moment at which a process dies, as by SIGKILL.

    Args:
        number: which of the moments that fit, from 1.
        instead_of: of the commit of a transaction, or of a statement in it: then the transaction
            has begun and nothing of it is kept.
        statement: only transactions count in which a statement holds this text.
    """

    number: int
    instead_of: Literal["commit", "statement"] = "commit"
    statement: str = ""


@dataclass(frozen=True)
class WorkerSpec:
    """What a process is to do.

    Args:
        url: of the cloud.
        folder: of the store.
        settings: of the program, besides those that cut short what waits.
        death: when it kills itself.
        falls_asleep: it stops itself, as by SIGSTOP, between its first claim and the request.
        lease: duration of a lease in seconds, if not the usual one.
        fence: seconds for which a sleeper's signature is feared, where not the usual ones.
    """

    url: str
    folder: Path
    settings: dict[str, Any] = field(default_factory=dict)
    death: KillPoint | None = None
    falls_asleep: bool = False
    lease: float | None = None
    fence: float | None = None


async def run_worker(life: WorkerSpec) -> None:
    """Drains until nothing can move, or death comes."""
    if life.death is not None:
        _meet(life.death)
    if life.falls_asleep:
        _fall_asleep()
    if life.fence is not None:
        recover_orphans.SIGNATURE_LIFETIME = timedelta(seconds=life.fence)
    async with make_orchestrator(life.url, life.folder, **life.settings) as orchestrator:
        if life.lease is not None:
            spare = life.lease - orchestrator.settings.request_timeout
            worker._LEASE_SPARE = timedelta(seconds=spare)
        await orchestrator.run()


def _fall_asleep() -> None:
    parts = vars(worker)
    send = parts["submit"]

    async def submit(*request: Any) -> Outcome:
        parts["submit"] = send
        os.kill(os.getpid(), signal.SIGSTOP)
        outcome: Outcome = await send(*request)
        return outcome

    parts["submit"] = submit


def _meet(death: KillPoint) -> None:
    numbers = itertools.count(1)

    def die_if_due(moment: str) -> None:
        if moment == death.instead_of and next(numbers) == death.number:
            os.kill(os.getpid(), signal.SIGKILL)

    @sa.event.listens_for(sa.Engine, "begin")
    def _begun(connection: sa.Connection) -> None:
        connection.info["counts"] = False

    @sa.event.listens_for(sa.Engine, "before_cursor_execute")
    def _executed(connection: sa.Connection, _cursor: object, text: str, *_rest: Any) -> None:
        if death.statement in text:
            connection.info["counts"] = True
            die_if_due("statement")

    @sa.event.listens_for(sa.Engine, "commit")
    def _committed(connection: sa.Connection) -> None:
        if connection.info.get("counts"):
            die_if_due("commit")
