"""``orchestrator db``: the store itself."""

from typing import TYPE_CHECKING

import anyio
import typer

from orchestrator.cli.options import Config, DatabaseUrl, settings_from

if TYPE_CHECKING:
    from orchestrator.settings import Settings

app = typer.Typer(help="The store: its version.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """The store: its version."""


@app.command("upgrade")
def upgrade(database_url: DatabaseUrl = None, config: Config = None) -> None:
    """Bring the store's tables to this program's version; make them where there are none."""
    from orchestrator.store import describe_url

    settings = settings_from(config=config, database_url=database_url)
    before, after = anyio.run(_upgrade, settings)
    name = describe_url(settings.sqlalchemy_url)
    print(
        f"{name}: {before or 'new'} → {after}" if before != after else f"{name}: {after}, current"
    )


async def _upgrade(settings: "Settings") -> tuple[str | None, str | None]:
    from orchestrator.orchestrator import upgrade_store

    return await upgrade_store(settings)
