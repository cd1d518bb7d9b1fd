"""The help texts: every command has one, with an example that the command accepts."""

import re
import shlex
from collections.abc import Iterator
from typing import Any

import pytest
import typer

from orchestrator.cli.main import app


def commands() -> Iterator[tuple[str, Any]]:
    """Yield every visible command with its name, subcommands included."""
    root = typer.main.get_command(app)
    for name, command in vars(root)["commands"].items():
        group = vars(command).get("commands")
        if group is not None:
            yield from ((f"{name} {sub}", one) for sub, one in group.items())
        elif not command.hidden:
            yield name, command


COMMANDS = dict(commands())


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_an_example_that_the_command_accepts(name: str) -> None:
    """The example fits on one line of 80 columns, and its options exist."""
    command = COMMANDS[name]
    with command.context_class(command, info_name=name, terminal_width=80) as context:
        text = command.get_help(context)
    (example,) = re.findall(rf"^  Example: orchestrator {name} ?(.*)$", text, re.MULTILINE)
    command.make_context(name, shlex.split(example))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_has_help(name: str) -> None:
    """No option or argument is left without an explanation."""
    unexplained = [
        parameter.name
        for parameter in COMMANDS[name].params
        if not getattr(parameter, "help", None)
    ]
    assert unexplained == []


def test_settle_is_hidden_and_names_resolve() -> None:
    """The old name of `resolve` does not appear in the help."""
    command: Any = typer.main.get_command(app)
    with command.context_class(command) as context:
        text = command.get_help(context)
    assert "resolve" in text
    assert "settle" not in text
