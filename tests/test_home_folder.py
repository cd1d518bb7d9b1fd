"""The home folder, and paths in it."""

import pwd
from pathlib import Path

import pytest

from orchestrator.errors import UsageError
from orchestrator.home_folder import absolute_path, home_folder
from orchestrator.settings import load_settings


@pytest.fixture
def _no_account(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give this process no entry in the user database, and no HOME."""

    def unknown(uid: int) -> None:
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for name in ("HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)


def test_home_is_the_folder_that_the_variable_names() -> None:
    """HOME counts, whether or not the folder exists."""
    assert home_folder({"HOME": "/not/there"}) == Path("/not/there")


@pytest.mark.parametrize("value", ["", "relative", "~", "./x"])
def test_a_home_that_is_not_absolute_counts_as_not_set(value: str) -> None:
    """It would name another folder wherever the command is run."""
    assert home_folder({"HOME": value}) == home_folder({})


@pytest.mark.usefixtures("_no_account")
def test_a_user_id_without_account_has_no_home() -> None:
    """Nothing is raised, because most commands do not need a home."""
    assert home_folder({}) is None


@pytest.mark.usefixtures("_no_account")
@pytest.mark.parametrize(
    "flags", [{}, {"database_url": "~/x.db"}, {"database_url": "sqlite:///~/x"}]
)
def test_a_database_in_a_missing_home_is_refused(flags: dict[str, object]) -> None:
    """The message names HOME, and what to use instead."""
    with pytest.raises(UsageError) as caught:
        load_settings(flags, {})
    assert "HOME is not set" in caught.value.message
    assert "Set HOME" in caught.value.remedy


@pytest.mark.usefixtures("_no_account")
def test_a_named_database_needs_no_home() -> None:
    """No home folder is looked for."""
    assert load_settings({"database_url": "/data/x.db"}, {}).sqlalchemy_url.endswith("/data/x.db")


def test_a_tilde_is_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both notations of a file know it: no folder with the name ~ is made."""
    monkeypatch.setenv("HOME", "/home/me")
    assert absolute_path("~/x.db") == Path("/home/me/x.db")
    for text in ("~/x.db", "sqlite:///~/x.db"):
        url = load_settings({"database_url": text}, {}).sqlalchemy_url
        assert url == "sqlite+aiosqlite:////home/me/x.db"


def test_a_relative_database_in_a_deleted_folder_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message says that the working folder is gone, for both notations of a file."""
    (folder := tmp_path / "gone").mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()
    for text in ("x.db", "sqlite:///x.db"):
        with pytest.raises(UsageError, match=r"x\.db cannot be found: the working folder"):
            load_settings({"database_url": text}, {})


@pytest.mark.parametrize("name", ["with blank", "张\u3000三", "Müller"])
def test_a_home_may_have_blanks_and_any_letters(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wide blank of Chinese names is no control character."""
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.setenv("HOME", f"/home/{name}")
    assert load_settings({}, {}).database_url.startswith(f"/home/{name}/")


@pytest.mark.parametrize("name", ["line\nbreak", "bytes \udcff"])
def test_a_home_that_is_no_text_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The default database cannot be there, and HOME is what to change."""
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.setenv("HOME", f"/home/{name}")
    with pytest.raises(UsageError, match="no text in this locale") as caught:
        load_settings({}, {})
    assert "Set HOME" in caught.value.remedy
