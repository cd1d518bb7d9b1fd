"""Which proxy the environment names for a host."""

import importlib.util

import httpx
import pytest

from orchestrator.cloud.proxies import EnvironmentProxies, Proxy
from orchestrator.errors import UsageError

SECRET = "p4ssw0rd"


def proxy_for(url: str) -> Proxy | None:
    """Return the proxy for a URL, with the present environment."""
    parts = httpx.URL(url)
    return EnvironmentProxies().proxy_for(parts.scheme, parts.host, parts.port)


@pytest.mark.parametrize(
    ("entries", "host", "is_direct"),
    [
        ("cvm.example", "cvm.example", True),
        ("cvm.example", "CVM.Example", True),
        ("CVM.EXAMPLE", "cvm.example", True),
        ("example", "cvm.example", True),
        (".example", "cvm.example", True),
        (".cvm.example", "cvm.example", True),
        ("*.example", "cvm.example", True),
        ("*example", "cvm.example", True),
        ("example.", "cvm.example", True),
        ("example", "cvm.example.", True),
        ("vm.example", "cvm.example", False),
        ("cvm.example", "example", False),
        ("cvm.example.org", "cvm.example", False),
        ("*", "cvm.example", True),
        ("a, *", "cvm.example", True),
        ("*", "10.1.2.3", True),
        ("a.b, ,,\tcvm.example ", "cvm.example", True),
        ("a.b cvm.example", "cvm.example", True),
        ("https://cvm.example/", "cvm.example", False),
        ("cvm.example:443", "cvm.example", True),
        ("cvm.example:8443", "cvm.example", False),
        ("cvm.example:8443", "cvm.example:8443", True),
        ("10.1.2.3", "10.1.2.3", True),
        ("10.1.2.3:443", "10.1.2.3", True),
        ("10.1.2.3", "10.1.2.30", False),
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.1.2.99/8", "10.1.2.3", True),
        ("10.0.0.0/255.0.0.0", "10.1.2.3", True),
        ("10.0.0.0/8", "11.1.2.3", False),
        ("10.0.0.0/8", "cvm.example", False),
        ("2.3", "10.1.2.3", False),
        ("0.0.0.0/0", "10.1.2.3", True),
        ("fd07:b51a:cc66:f0::/64", "[fd07:b51a:cc66:f0::7]", True),
        ("[fd07:b51a:cc66:f0::]/64", "[fd07:b51a:cc66:f0::7]", True),
        ("fd07:b51a:cc66:f0::/64", "[fd07:b51a:cc66:f1::7]", False),
        ("fd07:b51a:cc66:f0::/64", "10.1.2.3", False),
        ("fd07::1", "[fd07:0:0::1]", True),
        ("[fd07::1]", "[fd07::1]", True),
        ("[fd07::1]:443", "[fd07::1]", True),
        ("[fd07::1]:8443", "[fd07::1]", False),
        ("[fd07::1", "[fd07::1]", False),
        ("localhost,::1,[::1]", "cvm.example", False),
        ("10.0.0.0/33,[,],:,/,.,*:,10.0.0.0/x,http://,[::1,é", "cvm.example", False),
    ],
)
def test_exempted_hosts(
    monkeypatch: pytest.MonkeyPatch, entries: str, host: str, is_direct: bool
) -> None:
    """NO_PROXY has the same meaning as for curl and requests.

    An entry that cannot be read exempts nothing.
    """
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")
    monkeypatch.setenv("NO_PROXY", entries)
    assert (proxy_for(f"https://{host}") is None) == is_direct


@pytest.mark.parametrize(
    "entry",
    [
        *("10.0.0.0/33", "[::1", "::1]", "http://host", "host/", "host/24", "host:port", "host:"),
        *("host:123456", "10.", "10.*", "192.168", "a..b", "*.", ".", "*:", "<local>", "ho$t", "["),
    ],
)
def test_unreadable_exemptions_are_told(monkeypatch: pytest.MonkeyPatch, entry: str) -> None:
    """One note names the variable and the entries that cannot be read.

    It is shown only if a proxy is used.
    """
    monkeypatch.setenv("no_proxy", f"b.example,{entry},c.example")
    monkeypatch.setenv("HTTPS_PROXY", f"http://user:{SECRET}@proxy:3128")
    proxies = EnvironmentProxies()
    told = list(proxies.describe("https://cvm.example", "https://sts.example", "http://127.0.0.1"))
    unused = f"entries of no_proxy that cannot be read are not used: {entry}. "
    assert told[0] == "Proxy: proxy:3128 (HTTPS_PROXY)."
    assert unused in told[1]
    assert len(told) == 2
    assert SECRET not in "".join(told)
    assert not list(proxies.describe("https://b.example", "http://127.0.0.1:8080"))


def test_quotes_around_exemptions_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The note says that quotes make the first and the last entry unreadable."""
    monkeypatch.setenv("NO_PROXY", '"a.example,b.example,c.example"')
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")
    _, note = EnvironmentProxies().describe("https://cvm.example")
    assert 'are not used: "a.example, c.example". The value has quotes around it.' in note
    assert "docker run --env-file" in note


@pytest.mark.parametrize(
    "entry", [f"user:{SECRET}@host", f"http://user:{SECRET},x@host", f"user:x, {SECRET}!,y@host"]
)
def test_exemptions_with_a_login_are_not_shown(monkeypatch: pytest.MonkeyPatch, entry: str) -> None:
    """A comma or a blank in a password divides it among several entries."""
    monkeypatch.setenv("NO_PROXY", f"10.*,{entry}")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")
    _, note = EnvironmentProxies().describe("https://cvm.example")
    assert "entries of NO_PROXY that cannot be read are not used: " in note
    assert SECRET not in note


@pytest.mark.parametrize(
    "entry",
    [
        *("host", "host.example", "host.example.", ".suffix", "*.suffix", "*suffix", "*", "h_o-st"),
        *("10.1.2.3", "[10.1.2.3]", "fd07::1", "[fd07::1]", "::", "10.0.0.0/8", "10.1.2.3/8"),
        *("10.0.0.0/255.0.0.0", "fd07::/64", "[fd07::]/64", "host:443", ".suffix:443", "*:443"),
        *("10.1.2.3:443", "[fd07::1]:443", "é.example", "xn--9ca.example", "1and1.example"),
    ],
)
def test_standard_exemptions_need_no_note(monkeypatch: pytest.MonkeyPatch, entry: str) -> None:
    """Nothing but the proxy is told."""
    monkeypatch.setenv("NO_PROXY", f" localhost, {entry.upper()} ,,")
    monkeypatch.setenv("ALL_PROXY", "http://proxy:3128")
    told = list(EnvironmentProxies().describe("https://cvm.example:1", "https://{bucket}.{region}"))
    assert told == ([] if entry == "*" else ["Proxy: proxy:3128 (ALL_PROXY)."])


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "[::1]", "localhost", "LOCALHOST."])
def test_loopback_is_always_direct(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    """It needs no entry, and not even a valid proxy."""
    monkeypatch.setenv("HTTP_PROXY", "gopher://rubbish")
    assert proxy_for(f"http://{host}") is None


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"HTTPS_PROXY": "upper:1", "https_proxy": "lower:1"}, "lower:1 (https_proxy)"),
        ({"HTTPS_PROXY": "upper:1"}, "upper:1 (HTTPS_PROXY)"),
        ({"HTTPS_PROXY": "upper:1", "https_proxy": ""}, None),
        ({"ALL_PROXY": "all:1"}, "all:1 (ALL_PROXY)"),
        ({"ALL_PROXY": "all:1", "HTTPS_PROXY": "its:1"}, "its:1 (HTTPS_PROXY)"),
        ({"all_proxy": "all:1", "HTTPS_PROXY": "  "}, "all:1 (all_proxy)"),
        ({"ALL_PROXY": "socks4://all:1", "HTTPS_PROXY": "its:1"}, "its:1 (HTTPS_PROXY)"),
        ({"HTTP_PROXY": "http:1"}, None),
        ({"HTTP_PROXY": "gopher://x", "HTTPS_PROXY": "its:1"}, "its:1 (HTTPS_PROXY)"),
        ({"HTTPS_PROXY": "upper:1", "NO_PROXY": "", "no_proxy": "cvm.example"}, None),
        ({"HTTPS_PROXY": "u:1", "NO_PROXY": "cvm.example", "no_proxy": "b"}, "u:1 (HTTPS_PROXY)"),
    ],
)
def test_deciding_variable(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: str | None
) -> None:
    """The variable of the scheme, else ALL_PROXY; lower case takes precedence."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    proxy = proxy_for("https://cvm.example")
    assert (proxy and str(proxy)) == expected


def test_cgi_scripts_ignore_what_a_client_can_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """A header "Proxy" of a client becomes HTTP_PROXY there."""
    monkeypatch.setenv("HTTP_PROXY", "http://evil:1")
    assert proxy_for("http://cvm.example") is not None
    monkeypatch.setenv("REQUEST_METHOD", "GET")
    assert proxy_for("http://cvm.example") is None


@pytest.mark.parametrize(
    ("value", "scheme", "address", "credentials"),
    [
        ("proxy:3128", "http", "proxy:3128", None),
        (" http://proxy:3128 ", "http", "proxy:3128", None),
        ("HTTP://Proxy:3128/", "http", "Proxy:3128", None),
        ("http://proxy:3128/path?query", "http", "proxy:3128", None),
        ("proxy", "http", "proxy:80", None),
        ("http://proxy:", "http", "proxy:80", None),
        ("https://proxy", "https", "proxy:443", None),
        ("socks5h://proxy", "socks5h", "proxy:1080", None),
        ("http://[fd07::1]:3128", "http", "[fd07::1]:3128", None),
        ("http://[fd07::1]", "http", "[fd07::1]:80", None),
        ("http://10.1.2.3:3128", "http", "10.1.2.3:3128", None),
        ("http://us%20er:p%40s%3As@proxy:3128", "http", "proxy:3128", ("us er", "p@s:s")),
        ("http://user:p@s:s@proxy:3128", "http", "proxy:3128", ("user", "p@s:s")),
        ("user:50%@proxy:3128", "http", "proxy:3128", ("user", "50%")),
        ("CORP\\user:密@proxy:3128", "http", "proxy:3128", ("CORP\\user", "密")),
        ("user:%C3%A9@proxy:3128", "http", "proxy:3128", ("user", "é")),
        (f"socks5://user:{255 * 'x'}@proxy:1", "socks5", "proxy:1", ("user", 255 * "x")),
        (f"http://user:{256 * 'x'}@proxy:1", "http", "proxy:1", ("user", 256 * "x")),
        ("http://user@proxy:3128", "http", "proxy:3128", ("user", "")),
        ("http://@proxy:3128", "http", "proxy:3128", None),
    ],
)
def test_forms_of_a_proxy_url(
    monkeypatch: pytest.MonkeyPatch,
    value: str,
    scheme: str,
    address: str,
    credentials: tuple[str, str] | None,
) -> None:
    """A proxy URL may have blanks, no scheme, no port and an unescaped password."""
    monkeypatch.setenv("HTTPS_PROXY", value)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: True)
    proxy = proxy_for("https://cvm.example")
    assert proxy is not None
    assert (proxy.scheme, str(proxy)) == (scheme, f"{address} (HTTPS_PROXY)")
    assert proxy.credentials == credentials
    assert "p@s" not in repr(proxy)


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"])
@pytest.mark.parametrize(
    "value",
    [
        f"gopher://user:{SECRET}@proxy:1",
        f"socks4://user:{SECRET}@proxy:1",
        f"socks://user:{SECRET}@proxy:1",
        f"://user:{SECRET}@proxy:1",
        f"http:user:{SECRET}@proxy:1:2",
        f"http://user:{SECRET}@",
        f"http://user:{SECRET}@proxy:port",
        f"http://user:{SECRET}@proxy:0",
        f"http://user:{SECRET}@proxy:65536",
        f"http://user:{SECRET}@proxy:-1",
        f"http://user:{SECRET}@[::1",
        f"http://user:{SECRET}@[zz]:1",
        f"http://user:{SECRET}@pro xy:1",
        f"http://user:{SECRET}@-:1",
        f"http://user:{SECRET}/x@proxy:1",
        f"http://user:12/{SECRET}@proxy:1",
        f"http://user:12?{SECRET}@proxy:1",
        f"http://user:12#{SECRET}@proxy:1",
        f"http://user:{SECRET}",
        f"http://user:{SECRET}%E9@proxy:1",
        f"http://user%E9:{SECRET}@proxy:1",
        f"http://user:{SECRET}\udce9@proxy:1",
        f"socks5://user:{SECRET * 32}@proxy:1",
        f"socks5h://{'é' * 128}:{SECRET}@proxy:1",
        f'"http://user:{SECRET}@proxy:1"',
        f"http//user:{SECRET}@proxy:1",
        f"http:/user:{SECRET}@proxy:1",
        f"SOCKS5//user:{SECRET}@proxy:1",
        "${SECRET}",
    ],
)
def test_invalid_proxy_is_explained(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """The message names the variable, and no part of its value."""
    monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=f"^{name} does not name a proxy") as caught:
        proxy_for("https://cvm.example")
    text = str(caught.value)
    assert SECRET not in text
    assert "user:" not in text


def test_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """SOCKS needs a package that is not always installed, but only if it is used."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    monkeypatch.setenv("ALL_PROXY", f"socks5://user:{SECRET}@proxy:1080")
    with pytest.raises(UsageError, match=r"^ALL_PROXY names .* extra 'socks'") as caught:
        proxy_for("https://cvm.example")
    assert caught.value.remedy.endswith("pipx install --force '.[socks]'")
    assert SECRET not in str(caught.value)
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")
    assert str(proxy_for("https://cvm.example")) == "proxy:3128 (HTTPS_PROXY)"
