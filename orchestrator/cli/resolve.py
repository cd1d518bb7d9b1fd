"""``orchestrator settle``: a person's word for what became of an unknown job."""

from typing import TYPE_CHECKING, Annotated, Literal

import anyio
import typer

from orchestrator.cli.options import Config, DatabaseUrl, settings_from
from orchestrator.errors import UsageError

if TYPE_CHECKING:
    from orchestrator.settings import Settings


def command(
    job: Annotated[str, typer.Argument(metavar="JOB", help="A job's number or tag.")],
    verdict: Annotated[
        Literal["accepted", "absent"],
        typer.Option("--as", help="accepted: its export runs or has run. absent: it never began."),
    ],
    why: Annotated[
        str, typer.Option(metavar="TEXT", help="What you have seen; kept in the job's history.")
    ],
    database_url: DatabaseUrl = None,
    config: Config = None,
) -> None:
    """Settle a job whose answer was lost, by what you have seen of its export.

    `show JOB` tells what to look for. As absent it is sent again by the next run; if its export
    was there after all, the image is exported twice.
    """
    if not why.strip():
        raise UsageError("--why is empty.", "Say what you have seen: it is the only evidence.")
    settings = settings_from(config=config, database_url=database_url)
    number = anyio.run(_settle, settings, job, verdict, why)
    becomes = "accepted" if verdict == "accepted" else "queued again; `orchestrator run` sends it"
    print(f"Job {number} is {becomes}.")


async def _settle(settings: "Settings", job: str, verdict: str, why: str) -> int:
    from orchestrator.operations.resolve_unknown import Verdict
    from orchestrator.orchestrator import Orchestrator

    async with Orchestrator(settings=settings, create=False) as orchestrator:
        return await orchestrator.settle(job, Verdict(verdict), why=why)
