"""How a command ends when something went wrong: a message for a person, and an exit code."""

import sys
import traceback

from orchestrator.cli.streams import silence

INTERNAL = 1
USAGE = 2
A_PERSON_MUST_ACT = 6


def exit_code_for(error: BaseException) -> int:
    """Says what happened and what to do, on stderr; returns the exit code."""
    from sqlalchemy.exc import DBAPIError

    from orchestrator.db.trouble import said_by, trouble_of
    from orchestrator.errors import (
        CredentialError,
        ManifestError,
        OrchestratorError,
        StoreGoneError,
    )

    error = innermost(error)
    match error:
        case BrokenPipeError():
            # whoever read our output has seen enough
            silence(sys.stdout)
            return 0
        case ManifestError():
            _say(f"{error.message}\n" + "\n".join(f"  {fault}" for fault in error.faults))
            _say(error.remedy)
            return USAGE
        case OrchestratorError():
            _say(str(error))
            special = {StoreGoneError: INTERNAL, CredentialError: A_PERSON_MUST_ACT}
            return special.get(type(error), USAGE)
        case DBAPIError():
            _say(f"The database cannot be used: {said_by(error)}.\n  {trouble_of(error).remedy}")
            return INTERNAL
        case OSError() if trouble_of(error).passes:
            silence(sys.stdout)
            _say(
                f"{error.filename or 'The output'}: {said_by(error)}.\n  {trouble_of(error).remedy}"
            )
            return INTERNAL
        case _:
            traceback.print_exception(error)
            _say("This is a fault of the program. Nothing recorded is lost; run again to go on.")
            return INTERNAL


def innermost(error: BaseException) -> BaseException:
    """The first error of a group of tasks that ended together."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _say(text: str) -> None:
    print(text, file=sys.stderr)
