"""The common part of commands that change all jobs that match a filter."""

import sys
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import anyio

from orchestrator.cli.formatting import plural
from orchestrator.errors import UsageError

if TYPE_CHECKING:
    from orchestrator.model import JobFilter
    from orchestrator.orchestrator import Orchestrator
    from orchestrator.settings import Settings


class BulkResult(Protocol):
    """How many jobs an operation changed and skipped."""

    @property
    def changed(self) -> int:
        """Number of changed jobs."""

    @property
    def skipped(self) -> int:
        """Number of jobs that match, but were not changed."""


_Result = TypeVar("_Result", bound=BulkResult)


def apply_to_matching(
    settings: "Settings",
    wanted: "JobFilter",
    operation: Callable[..., Awaitable[_Result]],
    describe: Callable[[_Result], Iterable[str]],
    *,
    all_: bool,
    dry_run: bool,
) -> _Result | None:
    """Print what the operation would do, then do it; return ``None`` if nothing was done.

    Args:
        operation: a method of `Orchestrator` that takes the filter and ``dry_run``.
        describe: turns the result of the dry run into lines to print.

    Raises:
        UsageError: no filter was given, or no job matches it.
    """
    from orchestrator.model import JobFilter

    if wanted == JobFilter() and not all_:
        raise UsageError("No filter given.", "Add one, such as --batch NAME, or use --all.")
    preview = anyio.run(_call, settings, partial(operation, wanted=wanted, dry_run=True))
    matching = preview.changed + preview.skipped
    if not matching:
        raise UsageError("No job matches.", "`orchestrator history` lists the jobs.")
    verb = "matches" if matching == 1 else "match"
    for line in (f"{plural(matching, 'job')} {verb}.", *describe(preview)):
        print(line, file=sys.stdout if dry_run else sys.stderr)
    if dry_run or not preview.changed:
        return None
    result: _Result = anyio.run(_call, settings, partial(operation, wanted=wanted))
    return result


async def _call(settings: "Settings", operation: Callable[["Orchestrator"], Awaitable[Any]]) -> Any:
    from orchestrator.orchestrator import Orchestrator

    async with Orchestrator(settings=settings, create=False) as orchestrator:
        return await operation(orchestrator)
