"""All exit codes: of a run by its result, and of an error together with its message."""

import sys
import traceback
from collections.abc import Iterator
from typing import TYPE_CHECKING

from orchestrator.cli.formatting import fault_lines, printable
from orchestrator.cli.standard_streams import silence
from orchestrator.job_states import JobState

if TYPE_CHECKING:
    from orchestrator.reporting.run_summary import RunResult

INTERNAL = 1
USAGE = 2
SOME_FAILED = 3
SOME_UNKNOWN = 4
WORK_LEFT = 5
ACTION_REQUIRED = 6
TIME_LIMIT = 10
INTERRUPTED = 128
"""Plus the number of the signal, as shells do: 130 after Ctrl-C, 143 after SIGTERM."""

_PRECEDENCE = (USAGE, ACTION_REQUIRED, INTERNAL, 0)
"""Of several errors, the first code in this order wins: an error that the user can fix must not be
hidden by one that the user cannot. Code 0, a closed output pipe, counts only alone."""

_INTERNAL_ERROR = (
    "Internal error. Everything that was recorded is safe; run again to continue.\n"
    "Please report the traceback above."
)


def exit_code_of_run(result: "RunResult") -> int:
    """Return the exit code of a run that was not interrupted: the first that applies."""
    codes = [
        (result.left > 0 and result.needs_action, ACTION_REQUIRED),
        (result.left > 0 and result.timed_out, TIME_LIMIT),
        (result.left > 0, WORK_LEFT),
        (result.counts[JobState.UNKNOWN] > 0, SOME_UNKNOWN),
        (result.counts[JobState.FAILED] > 0, SOME_FAILED),
    ]
    return next((code for applies, code in codes if applies), 0)


def exit_code_for(error: BaseException) -> int:
    """Print each distinct error on stderr; return the exit code.

    Internal errors with their traceback are printed first, so that the message that says what to do
    is the last one on the screen.
    """
    ranked = sorted(
        set(map(_code_and_text, leaves(error))),
        key=lambda report: (_PRECEDENCE.index(report[0]), report[1]),
    )
    for _, text in reversed(ranked):
        if text:
            print("\n".join(map(printable, text.split("\n"))), file=sys.stderr)
    return ranked[0][0]


def leaves(error: BaseException) -> Iterator[BaseException]:
    """Yield the single errors of a nested exception group, or the error itself."""
    if isinstance(error, BaseExceptionGroup):
        for one in error.exceptions:
            yield from leaves(one)
    else:
        yield error


def _code_and_text(error: BaseException) -> tuple[int, str]:
    """Return the exit code and the message of an error, with its remedy.

    Also silence stdout if it cannot be written.
    """
    from sqlalchemy.exc import DBAPIError
    from sqlalchemy.exc import TimeoutError as PoolTimeoutError

    from orchestrator.errors import (
        CredentialError,
        ManifestError,
        OrchestratorError,
        StoreGoneError,
    )
    from orchestrator.store.error_classification import classify_store_error, store_error_text

    match error:
        case BrokenPipeError():
            # The reader of our output, such as `head`, has seen enough.
            silence(sys.stdout)
            return 0, ""
        case ManifestError():
            faults = (f"  {line}" for line in fault_lines(error.faults))
            return USAGE, "\n".join((error.message, *faults, error.remedy))
        case OrchestratorError():
            special = {StoreGoneError: INTERNAL, CredentialError: ACTION_REQUIRED}
            return special.get(type(error), USAGE), str(error)
        case DBAPIError() | PoolTimeoutError():
            place = "The database cannot be used"
        case OSError() if classify_store_error(error).is_temporary:
            silence(sys.stdout)
            place = error.filename or "The output"
        case _:
            return INTERNAL, "".join(traceback.format_exception(error)) + _INTERNAL_ERROR
    text = f"{place}: {store_error_text(error)}.\n  {classify_store_error(error).remedy}"
    return INTERNAL, text
