"""Errors that end a command: the message for the user and the exit code."""

import sys
import traceback
from collections.abc import Iterator
from dataclasses import dataclass

from orchestrator.cli.standard_streams import silence

INTERNAL = 1
USAGE = 2
ACTION_REQUIRED = 6

_PRECEDENCE = (USAGE, ACTION_REQUIRED, INTERNAL, 0)
"""Of several errors, the first code in this order wins: an error that the user can fix must not be
hidden by one that the user cannot. Code 0, a closed output pipe, counts only alone."""

_INTERNAL_ERROR = (
    "Internal error. Everything that was recorded is safe; run again to continue.\n"
    "Please report the traceback above."
)


@dataclass(frozen=True, slots=True)
class _Report:
    """What one error means for the command.

    Args:
        text: message and remedy; empty if there is nothing to print.
        ends_output: stdout cannot be written any more.
    """

    code: int
    text: str = ""
    ends_output: bool = False


def exit_code_for(error: BaseException) -> int:
    """Print each distinct error on stderr; return the exit code.

    Internal errors with their traceback are printed first, so that the message that says what to do
    is the last one on the screen.
    """
    reports = set(map(_report, leaves(error)))
    if any(report.ends_output for report in reports):
        silence(sys.stdout)
    ranked = sorted(reports, key=lambda report: (_PRECEDENCE.index(report.code), report.text))
    for report in reversed(ranked):
        if report.text:
            print(report.text, file=sys.stderr)
    return ranked[0].code


def leaves(error: BaseException) -> Iterator[BaseException]:
    """Yield the single errors of an exception group, however nested; else the error itself."""
    if isinstance(error, BaseExceptionGroup):
        for one in error.exceptions:
            yield from leaves(one)
    else:
        yield error


def _report(error: BaseException) -> _Report:
    from sqlalchemy.exc import DBAPIError

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
            return _Report(0, ends_output=True)
        case ManifestError():
            faults = (f"  {fault}" for fault in error.faults)
            return _Report(USAGE, "\n".join((error.message, *faults, error.remedy)))
        case OrchestratorError():
            special = {StoreGoneError: INTERNAL, CredentialError: ACTION_REQUIRED}
            return _Report(special.get(type(error), USAGE), str(error))
        case DBAPIError():
            message = f"The database cannot be used: {store_error_text(error)}."
            return _Report(INTERNAL, f"{message}\n  {classify_store_error(error).remedy}")
        case OSError() if classify_store_error(error).is_temporary:
            message = f"{error.filename or 'The output'}: {store_error_text(error)}."
            return _Report(
                INTERNAL, f"{message}\n  {classify_store_error(error).remedy}", ends_output=True
            )
        case _:
            trace = "".join(traceback.format_exception(error))
            return _Report(INTERNAL, trace + _INTERNAL_ERROR)
