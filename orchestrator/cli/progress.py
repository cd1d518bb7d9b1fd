"""Progress of a run on stderr: a live display at a terminal, otherwise a line now and then."""

import sys
import textwrap
import time
from collections import deque
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import anyio
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from orchestrator.cli.formatting import COLOURS, duration, is_capable_terminal, printable
from orchestrator.cli.status import detail_lines, eta_text, waiting_line, warning_lines
from orchestrator.errors import UsageError
from orchestrator.job_states import FINAL, JobState
from orchestrator.store.error_classification import STORE_ERRORS

if TYPE_CHECKING:
    from orchestrator.orchestrator import Orchestrator
    from orchestrator.reporting.status import Status

_REFRESH_SECONDS = 0.5
_LINE_SECONDS = 10.0

_REASON_LENGTH = 120
"""Characters of a warning in a line of progress."""

_RATE_SECONDS = 30.0
"""The displayed rate is the average over this time."""


class ProgressDisplay:
    """The progress of one run, in the batches that its summary will count.

    Args:
        batch: the only batch of the run; ``None`` is all that have a living job, now or later. One
            that ends between two looks is not seen.
    """

    def __init__(self, batch: str | None) -> None:
        self._is_of_all_batches = batch is None
        self._batches = frozenset[str]() if batch is None else frozenset({batch})
        # decided here, because rich also draws into a file if FORCE_COLOR is set, as in many CIs
        self._is_live = is_capable_terminal(sys.stderr)
        self._console = Console(stderr=True, force_terminal=self._is_live)
        self._started = time.monotonic()
        self._sent: deque[tuple[float, int]] = deque()

    def notify(self, message: str) -> None:
        """Print a message above the live display."""
        # only a terminal gets lines that are broken between words: in a log each message is a line
        self._console.print(
            printable(message), markup=False, highlight=False, soft_wrap=not self._is_live
        )

    async def show(self, orchestrator: "Orchestrator") -> None:
        """Show the progress until the task is cancelled."""
        if self._is_live:
            with Live(console=self._console, auto_refresh=False, transient=True) as live:
                while True:
                    started = time.monotonic()
                    if current := await self._read_status(orchestrator):
                        live.update(self._view(current), refresh=True)
                    # Of a very large store the status takes long: use a tenth of the time at most.
                    await anyio.sleep(max(_REFRESH_SECONDS, 10 * (time.monotonic() - started)))
        await self._read_status(orchestrator)  # a batch may end before the first line
        while True:
            await anyio.sleep(_LINE_SECONDS)
            if current := await self._read_status(orchestrator):
                counts = ", ".join(f"{n} {state}" for state, n in current.counts.items() if n)
                done = f"{_ended(current)}/{current.total} done ({counts or 'no jobs left'})"
                parts = (done, self._pace(current), waiting_line(current))
                self.notify("; ".join(filter(None, parts)) + _reason(current))

    async def _read_status(self, orchestrator: "Orchestrator") -> "Status | None":
        # The run itself reports a database that cannot be read, and a name that is not valid.
        with suppress(*STORE_ERRORS, UsageError):
            if self._is_of_all_batches:
                added = await orchestrator.unfinished_batches() - self._batches
                if added:
                    self._batches |= added
                    self._sent.clear()  # what was sent before they were added is no rate
            current = await orchestrator.progress(self._batches)
            profile = orchestrator.settings.profile
            scopes = tuple(scope for scope in current.scopes if scope.profile == profile)
            warnings = tuple(one for one in current.warnings if one.profile == profile)
            return replace(current, scopes=scopes, warnings=warnings)
        return None

    def _view(self, current: "Status") -> RenderableType:
        ended = _ended(current)
        grid = Table.grid(padding=(0, 1))
        bar = ProgressBar(total=max(current.total, 1), completed=ended, width=40)
        grid.add_row(bar, f"{ended}/{current.total}")
        counts = Text("  ").join(
            Text(f"{state} {count}", style=COLOURS.get(state, ""))
            for state, count in current.counts.items()
            if count
        )
        details = (Text(line, style="dim") for line in detail_lines(current))
        warnings = (Text(printable(line), style="yellow") for line in warning_lines(current))
        return Group(grid, Text(self._pace(current)), counts, *details, *warnings)

    def _pace(self, current: "Status") -> str:
        """Return elapsed time, accepted exports per second, and ETA."""
        now = time.monotonic()
        unsent = current.counts[JobState.QUEUED] + current.counts[JobState.SENDING]
        self._sent.append((now, current.total - unsent))
        while now - self._sent[0][0] > _RATE_SECONDS:
            self._sent.popleft()
        (since, before), (until, after) = self._sent[0], self._sent[-1]
        rate = max(0, after - before) / (until - since) if until > since else 0.0
        parts = [f"elapsed {duration(now - self._started)}"]
        if rate:
            parts.append(f"{rate:.1f} sent/s")
        if eta := eta_text(current):
            parts.append(eta)
        return ", ".join(parts)


def _ended(current: "Status") -> int:
    return sum(current.counts[state] for state in FINAL)


def _reason(current: "Status") -> str:
    """Return the start of the oldest warning that holds, so that a log repeats it."""
    if not current.warnings:
        return ""
    number = f" 1 of {len(current.warnings)}" if len(current.warnings) > 1 else ""
    start = textwrap.shorten(current.warnings[0].message, _REASON_LENGTH, placeholder=" …")
    return f"; warning{number}: {start}"
