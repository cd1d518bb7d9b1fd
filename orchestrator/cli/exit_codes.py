"""How a command ends when something went wrong: messages for a person, and an exit code."""

import sys
import traceback
from collections.abc import Iterator
from dataclasses import dataclass

from orchestrator.cli.standard_streams import silence

INTERNAL = 1
USAGE = 2
A_PERSON_MUST_ACT = 6

_PRECEDENCE = (USAGE, A_PERSON_MUST_ACT, INTERNAL, 0)
"""The exit code of several errors is the first of these that one of them has: what a person can fix
must not be hidden by what a person cannot. Without usable input or store, keys do not matter yet;
a pipe that the reader has closed matters only where nothing else went wrong."""


@dataclass(frozen=True, slots=True)
class _Report:
    """What one error means to the caller of the command.

    Args:
        text: message and remedy; empty where there is nothing to say.
        ends_output: stdout cannot be written any more.
    """

    code: int
    text: str = ""
    ends_output: bool = False


def exit_code_for(error: BaseException) -> int:
    """Print each distinct error with its remedy on stderr; return the exit code.

    Faults of the program come first, with their traceback, so that the message with the remedy is
    the last thing on the screen.
    """
    reports = set(map(_report, leaves(error)))
    if any(report.ends_output for report in reports):
        silence(sys.stdout)
    by_rank = sorted(reports, key=lambda one: (_PRECEDENCE.index(one.code), one.text))
    for report in reversed(by_rank):
        if report.text:
            print(report.text, file=sys.stderr)
    return by_rank[0].code


def leaves(error: BaseException) -> Iterator[BaseException]:
    """Yield the errors of a group, and of the groups in it; of anything else the error itself."""
    if isinstance(error, BaseExceptionGroup):
        for one in error.exceptions:
            yield from leaves(one)
    else:
        yield error


def _report(error: BaseException) -> _Report:
    """Return what a single error means."""
    from sqlalchemy.exc import DBAPIError

    from orchestrator.errors import (
        CredentialError,
        ManifestError,
        OrchestratorError,
        StoreGoneError,
    )
    from orchestrator.store.errors import classify_store_error, store_error_text

    match error:
        case BrokenPipeError():
            # whoever read our output has seen enough
            return _Report(0, ends_output=True)
        case ManifestError():
            faults = (f"  {fault}" for fault in error.faults)
            return _Report(USAGE, "\n".join((error.message, *faults, error.remedy)))
        case OrchestratorError():
            special = {StoreGoneError: INTERNAL, CredentialError: A_PERSON_MUST_ACT}
            return _Report(special.get(type(error), USAGE), str(error))
        case DBAPIError():
            said = f"The database cannot be used: {store_error_text(error)}."
            return _Report(INTERNAL, f"{said}\n  {classify_store_error(error).remedy}")
        case OSError() if classify_store_error(error).is_temporary:
            said = f"{error.filename or 'The output'}: {store_error_text(error)}."
            return _Report(
                INTERNAL, f"{said}\n  {classify_store_error(error).remedy}", ends_output=True
            )
        case _:
            trace = "".join(traceback.format_exception(error))
            return _Report(INTERNAL, trace + _FAULT_OF_THE_PROGRAM)


_FAULT_OF_THE_PROGRAM = (
    "This is a fault of the program. Nothing recorded is lost; run again to go on."
)
