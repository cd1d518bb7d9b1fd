"""What a person sees while a run goes on: a live view at a terminal, else a line now and then."""

import os
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import anyio
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from orchestrator.cli.formatting import duration
from orchestrator.cli.status import scope_line
from orchestrator.clock import iso
from orchestrator.errors import StoreGoneError
from orchestrator.job_states import FINAL, JobState
from orchestrator.store.errors import STORE_ERRORS

if TYPE_CHECKING:
    from orchestrator.orchestrator import Orchestrator
    from orchestrator.reporting.status import Status

_REFRESH = 0.5
_LINE_EVERY = 10.0
_RATE_OVER = 30.0
_IN_TROUBLE = (*STORE_ERRORS, StoreGoneError)
"""A store that cannot be read: what is wrong with it the run says."""

_STYLES = {
    JobState.VERIFIED: "green",
    JobState.ACCEPTED: "cyan",
    JobState.SENDING: "cyan",
    JobState.UNKNOWN: "yellow",
    JobState.FAILED: "red",
}


class ProgressDisplay:
    """The progress of one run, on stderr.

    Args:
        batch: only this batch is shown.
    """

    def __init__(self, batch: str | None) -> None:
        self._batch = batch
        self._console = Console(stderr=True)
        self._began = time.monotonic()
        self._sent: deque[tuple[float, int]] = deque()

    def notify(self, sentence: str) -> None:
        """Says something in passing, above the live view."""
        self._console.print(sentence, markup=False, highlight=False, soft_wrap=True)

    @asynccontextmanager
    async def follow(self, orchestrator: "Orchestrator") -> AsyncIterator[None]:
        """Shows how things stand until the block ends."""
        async with anyio.create_task_group() as tasks:
            dumb = os.environ.get("TERM") in {"dumb", "unknown"}
            live = self._console.is_terminal and not dumb
            tasks.start_soon(self._live if live else self._lines, orchestrator)
            try:
                yield
            finally:
                tasks.cancel_scope.cancel()

    async def _live(self, orchestrator: "Orchestrator") -> None:
        with Live(console=self._console, auto_refresh=False, transient=True) as live:
            while True:
                asked = time.monotonic()
                if found := await self._found(orchestrator):
                    live.update(self._view(found), refresh=True)
                # a view of a very large store must not become the store's main work
                await anyio.sleep(max(_REFRESH, 10 * (time.monotonic() - asked)))

    async def _lines(self, orchestrator: "Orchestrator") -> None:
        while True:
            await anyio.sleep(_LINE_EVERY)
            if found := await self._found(orchestrator):
                self.notify(self._line(found))

    async def _found(self, orchestrator: "Orchestrator") -> "Status | None":
        with suppress(*_IN_TROUBLE):
            return await orchestrator.status(batch=self._batch)
        return None

    def _view(self, found: "Status") -> RenderableType:
        ended = sum(found.counts[state] for state in FINAL)
        grid = Table.grid(padding=(0, 1))
        bar = ProgressBar(total=max(found.total, 1), completed=ended, width=40)
        grid.add_row(bar, f"{ended}/{found.total}", self._pace(found))
        counts = Text("  ").join(
            Text(f"{state} {count}", style=_STYLES.get(state, ""))
            for state, count in found.counts.items()
            if count
        )
        rows: list[RenderableType] = [grid, counts]
        if found.reasons:
            deferrals = ", ".join(f"{count} {reason}" for reason, count in found.reasons.items())
            rows.append(Text(f"waiting: {deferrals}", style="dim"))
        rows.extend(
            Text(scope_line(scope), style="dim", overflow="ellipsis")
            for scope in found.scopes
            if scope.waiting or scope.concurrency.running
        )
        return Group(*rows)

    def _line(self, found: "Status") -> str:
        ended = sum(found.counts[state] for state in FINAL)
        counts = ", ".join(f"{count} {state}" for state, count in found.counts.items() if count)
        return f"{ended}/{found.total} done ({counts}); {self._pace(found)}"

    def _pace(self, found: "Status") -> str:
        """Elapsed time, exports accepted per second of late, and what may be left."""
        now = time.monotonic()
        waiting = found.counts[JobState.QUEUED] + found.counts[JobState.SENDING]
        self._sent.append((now, found.total - waiting))
        while now - self._sent[0][0] > _RATE_OVER:
            self._sent.popleft()
        (since, before), (until, after) = self._sent[0], self._sent[-1]
        rate = max(0, after - before) / (until - since) if until > since else 0.0
        parts = [duration(now - self._began)]
        if rate:
            parts.append(f"{rate:.1f} accepted/s")
        if found.next_due_at is not None:
            parts.append(f"nothing is due before {iso(found.next_due_at)}")
        elif found.seconds_left:
            parts.append(f"about {duration(found.seconds_left)} left")
        return " · ".join(parts)
