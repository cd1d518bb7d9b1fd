"""Open the store for one operation of a command; the part that `retry` and `cancel` share."""

import sys
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import anyio

from orchestrator.cli.formatting import plural
from orchestrator.errors import UsageError

if TYPE_CHECKING:
    from orchestrator.model import JobFilter
    from orchestrator.operations import CancelResult, RetryResult
    from orchestrator.orchestrator import Orchestrator
    from orchestrator.settings import Settings

_Result = TypeVar("_Result")
_BulkResult = TypeVar("_BulkResult", "CancelResult", "RetryResult")


def call(
    settings: "Settings",
    operation: Callable[["Orchestrator"], Awaitable[_Result]],
    *,
    create: bool = False,
) -> _Result:
    """Open the store and return the result of an operation on it.

    Args:
        create: create the store if it does not exist.
    """
    from orchestrator.orchestrator import Orchestrator

    async def call_opened() -> _Result:
        async with Orchestrator(settings=settings, create=create) as orchestrator:
            return await operation(orchestrator)

    return anyio.run(call_opened)


def apply_to_matching(
    settings: "Settings",
    wanted: "JobFilter",
    operation: Callable[..., Awaitable[_BulkResult]],
    describe: Callable[[_BulkResult], Iterable[str]],
    *,
    all_: bool,
    dry_run: bool,
) -> _BulkResult | None:
    """Print what the operation would do, then do it; return ``None`` if nothing was done.

    Args:
        operation: a method of `Orchestrator` that takes the filter and ``dry_run``.
        describe: turns the result of the dry run into lines to print.
        all_: allow an empty filter.
        dry_run: only print.

    Raises:
        UsageError: neither a filter nor ``all_`` was given, or no job matches.
    """
    from orchestrator.model import JobFilter

    if wanted == JobFilter() and not all_:
        raise UsageError("No filter given.", "Add one, such as --batch NAME, or use --all.")
    preview: _BulkResult = call(settings, partial(operation, wanted=wanted, dry_run=True))
    matching = preview.changed + preview.skipped
    if not matching:
        raise UsageError("No job matches.", "`orchestrator history` lists the jobs.")
    verb = "matches" if matching == 1 else "match"
    for line in (f"{plural(matching, 'job')} {verb}.", *describe(preview)):
        print(line, file=sys.stdout if dry_run else sys.stderr)
    if dry_run or not preview.changed:
        return None
    return call(settings, partial(operation, wanted=wanted))
