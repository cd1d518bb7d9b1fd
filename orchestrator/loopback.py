"""Addresses of this machine itself: they need no proxy and no TLS."""

import ipaddress
from functools import cache


@cache
def is_loopback(host: str) -> bool:
    """Return whether a host name or address is this machine's own."""
    name = host.strip("[]").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
