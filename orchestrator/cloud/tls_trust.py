"""The certificate authorities that servers are verified with."""

import os
import ssl
import sys
from functools import cache
from pathlib import Path

from orchestrator.errors import UsageError

_SYSTEM_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)
"""Where Linux distributions store the system's authorities. A Python that brings its own OpenSSL
may look in another place."""


def trusted_certificates() -> ssl.SSLContext:
    """Return a context that verifies servers by the first of these that there is.

    What ``SSL_CERT_FILE`` and ``SSL_CERT_DIR`` name; the system's authorities; those of certifi.

    Raises:
        UsageError: one of the variables names something that cannot be used.
    """
    return _context(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))


@cache  # reading them takes 30 ms
def _context(file: str | None, folders: str | None) -> ssl.SSLContext:
    if file or folders:
        return _from_environment(file, folders)
    if sys.platform == "darwin":
        # OpenSSL cannot read the keychain
        import truststore  # noqa: PLC0415 - installed on macOS only

        return truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # not truststore: on Linux it reads the whole bundle for each connection, which takes 20 ms
    context = ssl.create_default_context()
    # the files of the folder are read when they are needed, so the context does not count them
    folder = ssl.get_default_verify_paths().capath
    has_authorities = context.cert_store_stats()["x509_ca"]
    if not (has_authorities or (folder and any(Path(folder).glob("*.[0-9]")))):
        import certifi  # noqa: PLC0415 - rarely needed

        bundle = next((path for path in _SYSTEM_BUNDLES if Path(path).is_file()), certifi.where())
        context.load_verify_locations(cafile=bundle)
    return context


def _from_environment(file: str | None, folders: str | None) -> ssl.SSLContext:
    if file and not Path(file).is_file():
        raise _unusable("SSL_CERT_FILE", file, "there is no such file")
    if folders and not any(Path(folder).is_dir() for folder in folders.split(os.pathsep)):
        raise _unusable("SSL_CERT_DIR", folders, "there is no such folder")
    try:
        return ssl.create_default_context(cafile=file or None, capath=folders or None)
    except OSError as error:  # of which ssl.SSLError is a subclass
        name, value = ("SSL_CERT_FILE", file) if file else ("SSL_CERT_DIR", folders)
        raise _unusable(name, str(value), error.strerror or str(error)) from error


def _unusable(name: str, value: str, reason: str) -> UsageError:
    return UsageError(
        f"{name} names {value}, which cannot be used: {reason}.",
        f"Correct {name}, or unset it to trust the system's certificates.",
    )
