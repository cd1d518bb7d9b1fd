"""``orchestrator db``: manage the database."""

from typing import TYPE_CHECKING

import typer

from orchestrator.cli.options import takes_settings

if TYPE_CHECKING:
    from orchestrator.settings import Settings

app = typer.Typer(help="Manage the database.", no_args_is_help=True)


@app.command("upgrade")
@takes_settings()
async def upgrade(settings: "Settings") -> None:
    """Upgrade the database to this version; create it if it does not exist.

    Example: orchestrator db upgrade --database-url exports.db
    """
    from orchestrator.database_url import describe_url
    from orchestrator.orchestrator import upgrade_store

    before, after = await upgrade_store(settings)
    name = describe_url(settings.sqlalchemy_url)
    if before == after:
        print(f"{name}: {after}, already up to date")
    else:
        print(f"{name}: {before or 'new'} → {after}")
