"""How a command ends when something went wrong: a message for a person, and an exit code."""

import os
import sys
import traceback

INTERNAL = 1
USAGE = 2


def exit_code_for(error: BaseException) -> int:
    """Says what happened and what to do, on stderr; returns the exit code."""
    from sqlalchemy.exc import DBAPIError

    from orchestrator.errors import ManifestError, OrchestratorError

    error = innermost(error)
    match error:
        case BrokenPipeError():
            # whoever read our output has seen enough; keep Python from flushing into the void
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        case ManifestError():
            _say(f"{error.message}\n" + "\n".join(f"  {fault}" for fault in error.faults))
            _say(error.remedy)
            return USAGE
        case OrchestratorError():
            _say(str(error))
            return USAGE
        case DBAPIError():
            _say(f"The database cannot be used: {error.orig}.\n  {_database_remedy(error)}")
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


def _database_remedy(error: Exception) -> str:
    said = str(error).lower()
    if "locked" in said:
        return "Another program holds it locked; run again when that has ended."
    if "full" in said:
        return "Make room on the disk, then run again: what is recorded is safe."
    if "readonly" in said or "read-only" in said:
        return "Make the file and its folder writable, then run again."
    if "malformed" in said or "not a database" in said:
        return "The file is damaged or no database of ours: take it from a backup."
    return "Check the URL, and that the server answers; then run again."


def _say(text: str) -> None:
    print(text, file=sys.stderr)
