"""Decisions about the jobs that a filter lets through: told first, then done."""

import sys
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Protocol, TypeVar

import anyio
import typer

from orchestrator.cli.formatting import plural
from orchestrator.errors import UsageError

if TYPE_CHECKING:
    from orchestrator.model import JobFilter
    from orchestrator.orchestrator import Orchestrator
    from orchestrator.settings import Settings

All = Annotated[bool, typer.Option("--all", help="All jobs, without a filter.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Say what would become of them; change nothing.")
]


class BulkResult(Protocol):
    """What becomes of the jobs."""

    @property
    def changed(self) -> int:
        """How many go on differently."""

    @property
    def untouched(self) -> int:
        """How many are left alone."""


_Decided = TypeVar("_Decided", bound=BulkResult)


def decide(
    settings: "Settings",
    wanted: "JobFilter",
    act: Callable[..., Awaitable[_Decided]],
    describe: Callable[[_Decided], Iterable[str]],
    *,
    all_: bool,
    dry_run: bool,
) -> _Decided | None:
    """Says what becomes of the jobs, and does it; ``None`` where there was nothing to do.

    Args:
        act: called with an orchestrator, the filter, and ``dry_run``.
        describe: the decision for eyes, line by line.

    Raises:
        UsageError: no filter, or no job that it lets through.
    """
    from orchestrator.model import JobFilter

    if wanted == JobFilter() and not all_:
        raise UsageError("No filter is given.", "Narrow it, as with --batch, or say --all.")
    preview = anyio.run(_in_store, settings, partial(act, wanted=wanted, dry_run=True))
    matching = preview.changed + preview.untouched
    if not matching:
        raise UsageError("No job matches.", "`orchestrator history` lists the jobs.")
    head = f"{plural(matching, 'job')} {'matches' if matching == 1 else 'match'}."
    for line in (head, *describe(preview)):
        print(line, file=sys.stdout if dry_run else sys.stderr)
    if dry_run or not preview.changed:
        return None
    done: _Decided = anyio.run(_in_store, settings, partial(act, wanted=wanted))
    return done


async def _in_store(settings: "Settings", act: Callable[["Orchestrator"], Awaitable[Any]]) -> Any:
    from orchestrator.orchestrator import Orchestrator

    async with Orchestrator(settings=settings, create=False) as orchestrator:
        return await act(orchestrator)
