"""The example file and the settings say the same."""

import re
import tomllib
from pathlib import Path

import platformdirs
import pytest

from orchestrator.settings import Settings, load_settings

EXAMPLE = Path(__file__).parents[2] / "config" / "orchestrator.toml"


def _uncommented() -> str:
    return re.sub(r"^# ([a-z_]+ = )", r"\1", EXAMPLE.read_text(), flags=re.MULTILINE)


def test_every_setting_stands_in_the_example_and_nothing_else_does() -> None:
    """The keys of the example are the settings' names, in their order."""
    assert list(tomllib.loads(_uncommented())) == list(Settings.model_fields)


def test_the_example_shows_the_true_defaults(tmp_path: Path) -> None:
    """With every line uncommented, the example changes nothing, save for the store's place."""
    path = tmp_path / "all.toml"
    path.write_text(_uncommented())
    shown = load_settings({"config": path}, {}).model_dump(exclude={"database_url"})
    assert shown == load_settings({}, {}).model_dump(exclude={"database_url"})


def test_the_example_names_the_store_of_this_platform(monkeypatch: pytest.MonkeyPatch) -> None:
    """The default store stands in the example as a person would write it."""
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    store = platformdirs.user_data_path("orchestrator") / "orchestrator.db"
    assert load_settings({}, {}).database_url == str(store)
    assert f"~/{store.relative_to(Path.home())}" in EXAMPLE.read_text()


def test_the_example_as_it_stands_changes_nothing() -> None:
    """Somebody who copies the example and edits nothing gets the defaults."""
    assert load_settings({"config": EXAMPLE}, {}) == load_settings({}, {})


def test_every_setting_is_explained() -> None:
    """Each key has lines of comment right above it."""
    lines = EXAMPLE.read_text().splitlines()
    for name in Settings.model_fields:
        place = next(n for n, line in enumerate(lines) if line.startswith(f"# {name} = "))
        assert all(line.startswith("# ") for line in lines[place - 2 : place]), name
