"""The proxy of each host, as the environment names it: with the variables of curl and requests.

httpx must not read them itself: it takes the entries of NO_PROXY for URLs, so it fails on networks
of IPv6, and does not exempt those of IPv4.
"""

import importlib.util
import ipaddress
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies

import httpx

from orchestrator.errors import UsageError
from orchestrator.loopback import is_loopback
from orchestrator.wording import REMOVE_QUOTES, has_quotes, how_to_install

_DEFAULT_PORTS = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}
_MAX_SOCKS_BYTES = 255
"""Length of a user name, and of a password (source: RFC 1929)."""

_WRONG_SCHEME = re.compile(r"(https?|socks[0-9a-z]*)(:/(?!/)|//)", re.IGNORECASE)
"""A scheme with a part of its separator left out."""

_OTHER_SOCKS = frozenset({"socks", "socks4", "socks4a"})
_BRACKETS = re.compile(r"^\[(.*)\]")
_NAME = re.compile(r"\*|\*?\.?((?:[\w-]+\.)*(?![0-9]+\.?$)[\w-]+)\.?")
"""A host name of NO_PROXY, with what may stand around it. No name ends in a number, as ``10.1.``"""

_ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.]+\]|\w[\w.-]*)(?::(.*))?")


@dataclass(frozen=True, slots=True)
class Proxy:
    """One proxy; as text it is its address and the variable that names it.

    Args:
        host: an IPv6 address stands in brackets.
        credentials: user name and password, decoded; they belong in no message.
    """

    variable: str
    scheme: str
    host: str
    port: int
    credentials: tuple[str, str] | None = field(default=None, repr=False)

    def __str__(self) -> str:
        return f"{self.host}:{self.port} ({self.variable})"

    @property
    def is_socks(self) -> bool:
        """Whether it speaks SOCKS 5 and not HTTP."""
        return self.scheme.startswith("socks")

    @classmethod
    def parse(cls, variable: str, value: str) -> Self:
        """Parse the value of a variable; without a scheme it means ``http://``.

        Raises:
            UsageError: it is not the URL of a proxy, or its kind of proxy cannot be used. The value
                is not repeated: it may hold a password.
        """
        if value[:1] in {"'", '"'}:
            raise _unusable(variable, "it begins with a quotation mark")
        if _WRONG_SCHEME.match(value):
            raise _unusable(variable, "after its scheme there is no ://")
        scheme, separator, rest = value.partition("://")
        scheme, rest = (scheme.lower(), rest) if separator else ("http", value)
        if scheme in _OTHER_SOCKS:
            raise _unusable(variable, "of SOCKS only version 5 is supported, as socks5://")
        if scheme not in _DEFAULT_PORTS:
            known = ", ".join(f"{name}://" for name in _DEFAULT_PORTS)
            raise _unusable(variable, f"it begins with none of {known}")
        authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
        if "@" in rest[len(authority) :]:
            raise _unusable(variable, "its user name or password contains /, ? or #")
        user_info, _, address = authority.rpartition("@")
        match = _ADDRESS.fullmatch(address)
        if match is None or not _is_host(match[1]):
            raise _unusable(variable, "it has no valid host name")
        host, port = match[1], match[2] or str(_DEFAULT_PORTS[scheme])
        if not (re.fullmatch("[0-9]{1,5}", port) and 0 < int(port) < 65_536):
            raise _unusable(variable, "its port is not a number from 1 to 65535")
        user, _, password = user_info.partition(":")
        credentials = (_decode(variable, user), _decode(variable, password)) if user_info else None
        if credentials and scheme.startswith("socks") and _longest(credentials) > _MAX_SOCKS_BYTES:
            reason = f"SOCKS allows {_MAX_SOCKS_BYTES} bytes for user name and password"
            raise _unusable(variable, reason)
        return cls(variable, scheme, host, int(port), credentials)


class EnvironmentProxies:
    """The proxies that the environment names at the time of construction.

    A lower-case variable takes precedence. ``HTTP_PROXY`` is ignored in a CGI script, where a
    client could set it. On macOS the system's settings apply if there are no variables.
    """

    def __init__(self) -> None:
        self._values = {kind: value.strip() for kind, value in getproxies().items()}
        entries = filter(None, re.split(r"[\s,]+", self._values.get("no", "").lower()))
        parsed = {entry: _Exemption.parse(entry) for entry in entries}
        self._direct = [exemption for exemption in parsed.values() if exemption is not None]
        self._unreadable = [entry for entry, exemption in parsed.items() if exemption is None]

    def proxy_for(self, scheme: str, host: str, port: int | None = None) -> Proxy | None:
        """Return the proxy for requests to a host, ``None`` for a direct connection.

        Args:
            host: an IPv6 address may stand in brackets.
            port: ``None`` is the scheme's default.

        Raises:
            UsageError: the variable that decides for this host cannot be used.
        """
        kind = scheme if self._values.get(scheme) else "all"
        if not self._values.get(kind) or self._is_direct(scheme, host, port):
            return None
        proxy = Proxy.parse(_variable(kind), self._values[kind])
        if proxy.is_socks and importlib.util.find_spec("socksio") is None:
            raise UsageError(
                f"{proxy.variable} names a proxy with SOCKS, which needs the extra 'socks'.",
                how_to_install("socks"),
            )
        return proxy

    def http_only(self, scheme: str, host: str, port: int | None = None) -> str | None:
        """Return the variable of the ``http://`` proxy if ``https://`` has none.

        The result is ``None`` if the scheme is not ``https``. It is also ``None`` if the host is
        exempted, so that nobody expects a proxy to be used.
        """
        is_for_others = scheme == "https" and bool(self._values.get("http"))
        if not is_for_others or self._values.get("https") or self._values.get("all"):
            return None
        return None if self._is_direct(scheme, host, port) else _variable("http")

    def _is_direct(self, scheme: str, host: str, port: int | None) -> bool:
        """Return whether a host is reached directly, whatever proxies there are."""
        name = host.strip("[]").lower().rstrip(".")
        number = port or {"http": 80, "https": 443}.get(scheme)
        return is_loopback(name) or any(one.contains(name, number) for one in self._direct)

    def describe(self, *endpoints: str) -> Iterator[str]:
        """Yield messages for the user about the proxies and unusable exemptions.

        Args:
            endpoints: base URLs whose proxies are named.

        Raises:
            UsageError: a variable that decides for one of them cannot be used.
        """
        parts = map(urlsplit, endpoints)
        used = [self.proxy_for(one.scheme, one.hostname or "", one.port) for one in parts]
        for proxy in dict.fromkeys(filter(None, used)):
            yield f"Proxy: {proxy}."
        if self._unreadable and any(used):
            entries = ", ".join(self._unreadable)
            if "@" in entries:  # a password may contain commas, so any entry may be a part of it
                count = len(self._unreadable)
                entries = f"{count}, not shown because a user name or password is among them"
            remedy = "Write each as a host name, an address or a network, separated by commas."
            if has_quotes(self._values["no"]):
                remedy = f"The value has quotes around it. {REMOVE_QUOTES}"
            yield (
                f"Note: entries of {_variable('no')} that cannot be read are not used: {entries}. "
                f"{remedy}"
            )


@dataclass(frozen=True, slots=True)
class _Exemption:
    """One entry of NO_PROXY: a name with all names below it, an address, a network, or ``*``."""

    name: str
    network: ipaddress.IPv4Network | ipaddress.IPv6Network | None
    port: int | None

    @classmethod
    def parse(cls, entry: str) -> Self | None:
        """Parse an entry in lower case; return ``None`` if it cannot be read."""
        with_port = re.fullmatch(r"(\[[^]]*\]|[^:]+):([0-9]{1,5})", entry)
        host, port = (with_port[1], int(with_port[2])) if with_port else (entry, None)
        with suppress(ValueError):
            return cls("", ipaddress.ip_network(_BRACKETS.sub(r"\1", host), strict=False), port)
        name = _NAME.fullmatch(host)
        return cls(name[1] or host, None, port) if name else None

    def contains(self, host: str, port: int | None) -> bool:
        """Return whether a host, in lower case and without brackets, is reached directly."""
        if self.port not in {None, port}:
            return False
        if self.name == "*":
            return True
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return bool(self.name) and f".{host}".endswith(f".{self.name}")
        return self.network is not None and address in self.network


def _variable(kind: str) -> str:
    """Return the name of the variable that decides, as the environment spells it.

    Without such a variable, return "the system's settings".
    """
    names = (f"{kind}_proxy", f"{kind}_proxy".upper())
    return next((name for name in names if os.environ.get(name)), "the system's settings")


def _decode(variable: str, text: str) -> str:
    """Return a user name or password without escapes; proxies expect it in UTF-8.

    Raises:
        UsageError: it is not UTF-8, escaped or not.
    """
    try:
        decoded = unquote(text, errors="strict")
        decoded.encode()
    except UnicodeError:
        # not the error itself: it holds the password
        raise _unusable(variable, "its user name or password is not UTF-8") from None
    return decoded


def _longest(credentials: tuple[str, str]) -> int:
    return max(len(part.encode()) for part in credentials)


def _is_host(text: str) -> bool:
    try:
        return bool(httpx.URL(f"http://{text}").host)
    except httpx.InvalidURL:
        return False


def _unusable(variable: str, reason: str) -> UsageError:
    return UsageError(
        f"{variable} does not name a proxy that can be used: {reason}.",
        "Write it like http://proxy.example:8080; in a user name or password write @ as %40, "
        "/ as %2F, ? as %3F and # as %23.",
    )
