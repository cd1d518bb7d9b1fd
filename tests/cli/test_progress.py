"""What the progress display prints."""

import pytest

from orchestrator.cli.progress import ProgressDisplay


def test_text_of_a_server_cannot_control_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """A warning may quote the page of a gateway, or the message of a refusal."""
    ProgressDisplay(None).notify("refused (\x1b[31mno\nWarning: 夜…)")
    assert capsys.readouterr().err == "refused ( [31mno Warning: 夜…)\n"
