"""The commands put together, and how the program ends."""

import gc
import sys

import typer

from orchestrator.cli import cancel, demo, enqueue, history, retry, run, show, simulate, status
from orchestrator.cli import database as db
from orchestrator.cli import resolve_unknown as settle
from orchestrator.cli.exit_codes import exit_code_for
from orchestrator.cli.standard_streams import prepare_streams

app = typer.Typer(
    name="orchestrator",
    help="Exports hundreds of Tencent Cloud images to COS, once each, and can prove it.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.command("enqueue")(enqueue.command)
app.command("run")(run.command)
app.command("status")(status.command)
app.command("history")(history.command)
app.command("show")(show.command)
app.command("retry")(retry.command)
app.command("cancel")(cancel.command)
app.command("settle")(settle.command)
app.add_typer(db.app, name="db")
app.command("simulate")(simulate.command)
app.command("demo")(demo.command)


def _version(wanted: bool) -> None:
    if wanted:
        from orchestrator import __version__

        typer.echo(f"orchestrator {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Show the version and leave."
    ),
) -> None:
    """Options before a command."""


def main() -> None:
    """Runs one command; what a person can mend ends in a message, never in a traceback."""
    prepare_streams()
    try:
        try:
            app(standalone_mode=True)
        finally:
            sys.stdout.flush()
            # all memory goes with the process: to look through it for garbage first takes longer
            # than many a command
            gc.freeze()
    except Exception as error:  # noqa: BLE001 - the last one who can say what happened
        sys.exit(exit_code_for(error))
    except KeyboardInterrupt:
        sys.exit(130)
