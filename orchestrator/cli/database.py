"""``orchestrator db``: manage the database."""

from typing import TYPE_CHECKING

import anyio
import typer

from orchestrator.cli.options import Config, DatabaseUrl, settings_from

if TYPE_CHECKING:
    from orchestrator.settings import Settings

app = typer.Typer(help="Manage the database.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Manage the database."""


@app.command("upgrade")
def upgrade(database_url: DatabaseUrl = None, config: Config = None) -> None:
    """Upgrade the database to this version; create it if it does not exist.

    Example: orchestrator db upgrade --database-url exports.db
    """
    from orchestrator.store import describe_url

    settings = settings_from(config=config, database_url=database_url)
    before, after = anyio.run(_upgrade, settings)
    name = describe_url(settings.sqlalchemy_url)
    if before == after:
        print(f"{name}: {after}, already up to date")
    else:
        print(f"{name}: {before or 'new'} → {after}")


async def _upgrade(settings: "Settings") -> tuple[str | None, str | None]:
    from orchestrator.orchestrator import upgrade_store

    return await upgrade_store(settings)
