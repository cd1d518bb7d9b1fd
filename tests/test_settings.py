"""Settings: where a value comes from, and the message about one that is not valid."""

import json
import re
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path

import pytest

from orchestrator.errors import UsageError
from orchestrator.settings import Settings, load_settings, unknown_variables

SECOND = timedelta(seconds=1)
Write = Callable[[str | bytes], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Return a function that writes a settings file and returns its path."""

    def write(content: str | bytes) -> Path:
        path = tmp_path / "settings.toml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def _refusal(
    flags: Mapping[str, object] | None = None, environ: Mapping[str, str] | None = None
) -> str:
    with pytest.raises(UsageError) as caught:
        load_settings(flags or {}, environ or {})
    assert caught.value.remedy
    assert caught.value.__cause__ is None, "the library's own message is not shown"
    return str(caught.value)


def test_defaults_are_the_documented_ones() -> None:
    """Without any value the settings are those that the documentation promises."""
    settings = load_settings({}, {})
    assert settings.site == "intl"
    assert settings.cvm_endpoint == "https://cvm.intl.tencentcloudapi.com"
    assert settings.cos_endpoint == "https://{bucket}.cos.{region}.myqcloud.com"
    assert settings.sts_endpoint == "https://sts.intl.tencentcloudapi.com"
    assert settings.metadata_endpoint == "http://metadata.tencentyun.com"
    assert (settings.rate, settings.concurrency, settings.max_attempts) == (20, 32, 8)
    assert (settings.verify, settings.verify_interval) == ("auto", None)
    assert (settings.request_timeout, settings.resend_after) == (30 * SECOND, 120 * SECOND)
    assert settings.export_deadline == timedelta(days=1)
    assert settings.profile == "default"
    assert settings.database_url.endswith("orchestrator.db")


def test_a_database_is_needed_only_without_a_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container's user may have neither HOME nor an entry in the user database."""
    monkeypatch.delenv("HOME")
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.setattr("os.getuid", lambda: 2**31 - 3)
    with pytest.raises(UsageError, match="ORCHESTRATOR_DATABASE_URL") as caught:
        load_settings({}, {})
    assert "HOME" in str(caught.value)
    assert load_settings({"database_url": "/data/jobs.db"}, {}).database_url == "/data/jobs.db"


def test_flag_precedes_variable_precedes_file_precedes_default(write: Write) -> None:
    """The precedence applies to each setting by itself."""
    path = write("rate = 1\nconcurrency = 1\nmax_attempts = 1\n")
    environ = {"ORCHESTRATOR_RATE": "2", "ORCHESTRATOR_CONCURRENCY": "2"}
    settings = load_settings({"config": path, "rate": 3, "site": None}, environ)
    assert (settings.rate, settings.concurrency, settings.max_attempts) == (3, 2, 1)
    assert settings.resend_after == 120 * SECOND


@pytest.mark.parametrize("name", sorted(Settings.model_fields))
def test_every_setting_has_a_variable(name: str, write: Write) -> None:
    """Flag, variable and file accept the same value of every setting."""
    other = {
        "site": "mainland",
        "verify": "off",
        "database_url": "other.db",
        "profile": "other",
        "resend": "never",
        "allow_plain_http": "true",
        "allow_network_store": "true",
        "cvm_endpoint": "http://127.0.0.1:1",
        "cos_endpoint": "http://127.0.0.1:2",
        "sts_endpoint": "http://127.0.0.1:3",
        "metadata_endpoint": "http://127.0.0.1:4",
    }.get(name, "7")
    by_variable = load_settings({}, {f"ORCHESTRATOR_{name.upper()}": f" {other} "})
    by_file = load_settings({}, {"ORCHESTRATOR_CONFIG": str(write(f'{name} = "{other}"'))})
    assert by_variable == by_file == load_settings({name: other}, {})
    assert getattr(by_variable, name) != getattr(load_settings({}, {}), name)


def test_only_the_given_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables of the process itself are ignored."""
    monkeypatch.setenv("ORCHESTRATOR_RATE", "3")
    monkeypatch.setenv("RATE", "4")
    monkeypatch.setenv("TCCLI_PROFILE", "other")
    assert load_settings({}, {}) == load_settings({}, {"ORCHESTRATOR_RATE": ""})
    assert load_settings({}, {}).rate == 20
    assert load_settings({}, {}).profile == "default"


def test_config_flag_precedes_its_variable(write: Write, tmp_path: Path) -> None:
    """A missing file that only the variable names is not read."""
    environ = {"ORCHESTRATOR_CONFIG": str(tmp_path / "missing.toml")}
    assert load_settings({"config": write("rate = 1")}, environ).rate == 1
    assert "missing.toml cannot be read: No such file" in _refusal(environ=environ)


def test_tccli_profile_is_a_default(write: Write) -> None:
    """TCCLI_PROFILE names the profile if no setting does."""
    environ = {"TCCLI_PROFILE": "work"}
    assert load_settings({}, environ).profile == "work"
    assert load_settings({"config": write('profile = "home"')}, environ).profile == "home"


def test_profile_is_named_by_the_settings_and_not_by_tccli(write: Write) -> None:
    """A flag, variable or file names the profile; TCCLI_PROFILE is only a default."""
    config = {"config": write('profile = "b"')}
    assert load_settings({"profile": "b"}, {"TCCLI_PROFILE": "b"}).is_profile_named
    assert load_settings({}, {"ORCHESTRATOR_PROFILE": "default"}).is_profile_named
    assert load_settings(config, {"TCCLI_PROFILE": "a"}).is_profile_named
    assert Settings(profile="b").is_profile_named
    assert not load_settings({}, {"TCCLI_PROFILE": "b"}).is_profile_named
    assert not load_settings({}, {}).is_profile_named


def test_endpoint_depends_on_the_site_unless_given() -> None:
    """Each site has a public endpoint; a given one is used without its last slash."""
    mainland = load_settings({"site": "mainland"}, {})
    assert mainland.cvm_endpoint == "https://cvm.tencentcloudapi.com"
    named = load_settings({"site": "mainland", "cvm_endpoint": "http://127.0.0.1:8000/"}, {})
    assert named.cvm_endpoint == "http://127.0.0.1:8000"


@pytest.mark.parametrize("name", ["cvm_endpoint", "cos_endpoint", "sts_endpoint"])
def test_plain_http_is_refused_beyond_loopback(name: str) -> None:
    """Only loopback, or allow_plain_http, permits an endpoint without TLS."""
    assert "it must be a base URL with https://" in _refusal({name: "http://example.com"})
    for host in ("localhost:8000", "127.0.0.1", "[::1]:8000"):
        assert getattr(load_settings({name: f"http://{host}"}, {}), name) == f"http://{host}"
    allowed = load_settings({name: "http://example.com", "allow_plain_http": True}, {})
    assert getattr(allowed, name) == "http://example.com"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("site", "china"),
        ("rate", "-1"),
        ("rate", "nan"),
        ("rate", 1e-12),
        ("rate", "inf"),
        ("rate", True),
        ("concurrency", 0),
        ("concurrency", 513),
        ("concurrency", 1.5),
        ("verify", "yes"),
        ("verify_interval", 0.1),
        ("verify_interval", "often"),
        ("request_timeout", 0),
        ("request_timeout", 1e300),
        ("resend_after", -1),
        ("resend_after", "1:30"),
        ("resend_after", "PT90S"),
        ("resend_after", True),
        ("export_deadline", 0),
        ("max_attempts", 0),
        ("profile", "../other"),
        ("profile", "\udcff"),
        ("profile", "a\x7f"),
        ("cvm_endpoint", "cvm.tencentcloudapi.com"),
        ("cvm_endpoint", "https://{bucket}.example.com"),
        ("cvm_endpoint", "https://example.com:port"),
        ("cos_endpoint", "https://{zone}.example.com"),
        ("cos_endpoint", "https://example.com/?a=b"),
        ("cos_endpoint", ""),
        ("metadata_endpoint", ""),
    ],
)
def test_invalid_value_is_refused_with_the_valid_ones(name: str, value: object) -> None:
    """The message names the flag, the value and which values are valid."""
    message = _refusal({name: value})
    assert message.startswith(f"The flag --{name.replace('_', '-')} is {value!r}; it must be ")
    assert str(Settings.model_fields[name].description) in message


@pytest.mark.parametrize("value", ['"20"', "'20'", "\u201c20\u201d"])
def test_quotes_around_a_value_are_named(write: Write, value: str) -> None:
    """The message says that a value has quotes around it.

    Some tools keep them as a part of the value, which any setting would refuse or misread.
    """
    path = write(f"profile = {json.dumps(value)}\n")
    for message in (
        _refusal({}, {"ORCHESTRATOR_RATE": value}),
        _refusal({}, {"ORCHESTRATOR_PROFILE": value}),
        _refusal({"config": path}),
        _refusal({"database_url": value}),
    ):
        assert re.search(r"(_RATE|_PROFILE|profile|database-url) has quotes around it\.", message)
        assert "docker run --env-file" in message
    assert load_settings({"rate": "5"}, {"ORCHESTRATOR_RATE": value}).rate == 5


def test_every_invalid_value_is_named_with_its_origin(write: Write) -> None:
    """One message lists all: the flag, the variable, and the file with its line."""
    path = write("# first\nsite = 'moon'\n")
    message = _refusal({"config": path, "rate": "x"}, {"ORCHESTRATOR_CONCURRENCY": "many"})
    assert "The flag --rate is 'x';" in message
    assert "The variable ORCHESTRATOR_CONCURRENCY is 'many';" in message
    assert f"{path}, line 2: site is 'moon';" in message


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("rate = 1\n\nconcurency = 2\n", "line 3: concurency is not a setting. Did you mean concu"),
        ("[orchestrator]\nrate = 1\n", "line 1: orchestrator is a table; write settings"),
        ("rate.max = 5\n", "line 1: rate is a table; write settings"),
        ("rate = 1\nsite = intl\n", "is not TOML: Invalid value (at line 2, column 8)."),
        (b"rate = 1\n# \xff\n", "line 2: is not valid UTF-8."),
        ("a = " + "[" * 100_000, "is not TOML"),
        ("rate = " + "9" * 10_000, "is not TOML"),
    ],
)
def test_invalid_file_is_refused_with_its_line(
    write: Write, content: str | bytes, expected: str
) -> None:
    """Whatever the file holds, the message names it and the line."""
    path = write(content)
    message = _refusal({"config": path})
    assert str(path) in message
    assert expected in message


def test_folder_instead_of_a_file_is_refused(tmp_path: Path) -> None:
    """The message has the system's reason."""
    assert f"{tmp_path} cannot be read: Is a directory" in _refusal({"config": tmp_path})


def test_file_of_a_windows_editor_is_read(write: Write) -> None:
    """A byte order mark and Windows line ends are accepted."""
    assert (
        load_settings({"config": write(b"\xef\xbb\xbfrate = 1\r\nsite = 'intl'\r\n")}, {}).rate == 1
    )


def test_adaptive_interval_overrides_a_fixed_one(write: Write) -> None:
    """A variable can undo the interval that a file sets."""
    path = write("verify_interval = 5")
    assert load_settings({"config": path}, {}).verify_interval == 5 * SECOND
    environ = {"ORCHESTRATOR_VERIFY_INTERVAL": "adaptive"}
    assert load_settings({"config": path}, environ).verify_interval is None


def test_password_is_never_shown() -> None:
    """No text form of the settings and no message about an endpoint shows a password."""
    settings = load_settings({"database_url": "postgresql://me:hush@db/jobs"}, {})
    assert "hush" not in repr(settings) + str(settings)
    assert "hush" in settings.sqlalchemy_url
    assert "hush" not in _refusal({"cvm_endpoint": "https://me:hush@example.com"})


def test_unknown_variable_is_noted_with_the_nearest() -> None:
    """A typing error in a variable's name is reported, but is not an error."""
    environ = {"ORCHESTRATOR_CONCURENCY": "1", "ORCHESTRATOR_CONFIG": "", "HOME": "/"}
    (note,) = unknown_variables(environ)
    assert "ORCHESTRATOR_CONCURENCY" in note
    assert "Did you mean ORCHESTRATOR_CONCURRENCY?" in note
