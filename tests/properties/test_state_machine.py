"""In any order of steps of processes, vendor, operators and time, no export is lost or doubled."""

import shutil
from collections.abc import Callable
from itertools import count
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from orchestrator.store import Database
from tests.job_factory import FakeClock

from .state_machine import ExportStateMachine

SHORT = settings(
    max_examples=15,
    stateful_step_count=40,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


def make_state_machine(
    template: Path, folder: Path, *, on_start: Callable[[int], None] = lambda number: None
) -> type[ExportStateMachine]:
    """Return the state machine; each history has a new file as its store.

    Args:
        template: an empty store.
        folder: where the stores are made.
        on_start: called with the number of each history, from 0, before it begins.
    """
    numbers = count()

    def fresh() -> Path:
        for old in folder.glob("store-*"):
            old.unlink()
        number = next(numbers)
        on_start(number)
        return Path(shutil.copy(template, folder / f"store-{number}.db"))

    async def open_store(clock: FakeClock) -> Database:
        return Database(f"sqlite+aiosqlite:///{fresh()}", clock)

    class OnFiles(ExportStateMachine):
        def __init__(self) -> None:
            super().__init__(open_store)

    return OnFiles


def test_invariants_hold_in_any_order_of_steps(sqlite_template: Path, tmp_path: Path) -> None:
    """After each step and at the end the invariants of the state machine hold."""
    run_state_machine_as_test(make_state_machine(sqlite_template, tmp_path), settings=SHORT)
