"""``orchestrator resolve``: record whether an unknown job's export began."""

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from orchestrator.cli.options import takes_settings
from orchestrator.cli.store_session import call
from orchestrator.errors import UsageError

if TYPE_CHECKING:
    from orchestrator.settings import Settings


@takes_settings()
def command(
    *,
    job: Annotated[str, typer.Argument(metavar="JOB", help="Job id or tag.")],
    verdict: Annotated[
        Literal["accepted", "absent"],
        typer.Option(
            "--as", help="accepted: the export is running or has run. absent: it never began."
        ),
    ],
    why: Annotated[
        str, typer.Option(metavar="TEXT", help="Your evidence; stored in the job's events.")
    ],
    settings: "Settings",
) -> None:
    """Resolve an unknown job: state whether its export began.

    `orchestrator show JOB` says what to check first. A job resolved as absent is sent again by the
    next run; if its export exists after all, the image is exported twice.

    Example: orchestrator resolve 17 --as absent --why 'no task in console'
    """
    if not why.strip():
        raise UsageError("--why is empty.", "Describe what you have seen: it is the only evidence.")
    job_id = call(settings, lambda orchestrator: orchestrator.resolve(job, verdict, why=why))
    if verdict == "accepted":
        print(f"Job {job_id} is now accepted; `orchestrator run` waits for its objects.")
    else:
        print(f"Job {job_id} is queued again; `orchestrator run` sends it.")


def renamed() -> None:
    """Explain that `settle` is now called `resolve`."""
    raise UsageError(
        "The command `settle` is now `orchestrator resolve JOB --as accepted|absent --why TEXT`."
    )
