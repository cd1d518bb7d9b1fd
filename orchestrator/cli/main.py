"""The application: all commands, and how the process ends."""

import gc
import signal
import sys

import typer

from orchestrator.cli import (
    database,
    demo,
    enqueue,
    history,
    operations,
    run,
    show,
    simulate,
    status,
)
from orchestrator.cli.exit_codes import INTERRUPTED, exit_code_for
from orchestrator.cli.standard_streams import prepare_streams

app = typer.Typer(
    name="orchestrator",
    help="Export Tencent Cloud CVM images to COS in batches, each exactly once.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

for module in (enqueue, run, status, history, show):
    app.command(module.__name__.rpartition(".")[-1])(module.command)
for command in (operations.retry, operations.cancel, operations.resolve):
    app.command()(command)
app.command(
    "settle",
    hidden=True,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)(operations.settle)
app.add_typer(database.app, name="db")
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
        False, "--version", callback=_version, is_eager=True, help="Show version and exit."
    ),
) -> None:
    """Define the global options, which precede the command."""


def main() -> None:
    """Run one command; print errors as messages, and exit with the documented code."""
    prepare_streams()
    try:
        try:
            app(standalone_mode=True)
        finally:
            sys.stdout.flush()
            # Skip the interpreter's last garbage collection: it takes longer than many commands.
            gc.freeze()
    except Exception as error:  # noqa: BLE001 - any error must end in a message and an exit code
        sys.exit(exit_code_for(error))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED + signal.SIGINT)
