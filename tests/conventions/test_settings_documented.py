"""The example file documents every setting with its default."""

import re
import tomllib
from pathlib import Path

import platformdirs
import pytest

from orchestrator.settings import Settings, load_settings

EXAMPLE = Path(__file__).parents[2] / "config" / "orchestrator.toml"


def _uncommented() -> str:
    return re.sub(r"^# ([a-z_]+ = )", r"\1", EXAMPLE.read_text(), flags=re.MULTILINE)


def test_example_lists_exactly_the_settings() -> None:
    """The keys of the example are the settings' names, in their order."""
    assert list(tomllib.loads(_uncommented())) == list(Settings.model_fields)


def test_example_shows_the_real_defaults(tmp_path: Path) -> None:
    """With every line uncommented the example changes nothing but the database."""
    path = tmp_path / "all.toml"
    path.write_text(_uncommented())
    shown = load_settings({"config": path}, {}).model_dump(exclude={"database_url"})
    assert shown == load_settings({}, {}).model_dump(exclude={"database_url"})


def test_example_names_the_default_database(monkeypatch: pytest.MonkeyPatch) -> None:
    """The default database is in the example as a person would write it."""
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    database = platformdirs.user_data_path("orchestrator") / "orchestrator.db"
    assert load_settings({}, {}).database_url == str(database)
    assert f"~/{database.relative_to(Path.home())}" in EXAMPLE.read_text()


def test_unedited_example_changes_nothing() -> None:
    """A copy of the example without edits gives the defaults."""
    assert load_settings({"config": EXAMPLE}, {}) == load_settings({}, {})


def test_every_setting_is_explained() -> None:
    """Each key has lines of comment directly above it."""
    lines = EXAMPLE.read_text().splitlines()
    for name in Settings.model_fields:
        number = next(n for n, line in enumerate(lines) if line.startswith(f"# {name} = "))
        assert all(line.startswith("# ") for line in lines[number - 2 : number]), name
