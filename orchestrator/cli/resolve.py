"""``orchestrator resolve``: record whether an unknown job's export began."""

from typing import TYPE_CHECKING, Annotated, Literal

import anyio
import typer

from orchestrator.cli.options import Config, DatabaseUrl, settings_from
from orchestrator.errors import UsageError

if TYPE_CHECKING:
    from orchestrator.settings import Settings


def command(
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
    database_url: DatabaseUrl = None,
    config: Config = None,
) -> None:
    """Resolve an unknown job: state whether its export began.

    `orchestrator show JOB` says what to check first. A job resolved as absent is sent again by the
    next run; if its export exists after all, the image is exported twice.

    Example: orchestrator resolve 17 --as absent --why 'no task in console'
    """
    if not why.strip():
        raise UsageError("--why is empty.", "Describe what you have seen: it is the only evidence.")
    settings = settings_from(config=config, database_url=database_url)
    job_id = anyio.run(_resolve, settings, job, verdict, why)
    if verdict == "accepted":
        print(f"Job {job_id} is accepted.")
    else:
        print(f"Job {job_id} is queued again; `orchestrator run` sends it.")


async def _resolve(settings: "Settings", job: str, verdict: str, why: str) -> int:
    from orchestrator.operations.resolve_unknown import Verdict
    from orchestrator.orchestrator import Orchestrator

    async with Orchestrator(settings=settings, create=False) as orchestrator:
        return await orchestrator.resolve(job, Verdict(verdict), why=why)


def renamed() -> None:
    """Explain that `settle` is now called `resolve`."""
    raise UsageError(
        "The command `settle` is now `orchestrator resolve JOB --as accepted|absent --why TEXT`."
    )
