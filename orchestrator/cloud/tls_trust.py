"""Which certificate authorities are trusted: the environment's, the system's, or certifi's."""

import os
import ssl
import sys
from collections.abc import Mapping
from pathlib import Path

from orchestrator.errors import UsageError

_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)
"""Where Linux distributions keep the system's authorities, for a Python with an OpenSSL of its own
that looks elsewhere."""


def trusted_certificates(environ: Mapping[str, str] = os.environ) -> ssl.SSLContext:
    """Make the context that verifies servers.

    The order is: ``SSL_CERT_FILE`` and ``SSL_CERT_DIR``, the system's store, certifi.

    Raises:
        UsageError: a variable names nothing that can be read.
    """
    file, folders = environ.get("SSL_CERT_FILE"), environ.get("SSL_CERT_DIR")
    if file or folders:
        return _from_environment(file, folders)
    if sys.platform == "darwin":
        # only the system itself knows which authorities the keychain trusts
        import truststore  # noqa: PLC0415 - installed on macOS only

        return truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # on Linux truststore would read the whole bundle again for each connection: 20 ms each
    context = ssl.create_default_context()
    if _is_empty(context):
        context.load_verify_locations(cafile=_system_bundle() or _certifi_bundle())
    return context


def _from_environment(file: str | None, folders: str | None) -> ssl.SSLContext:
    if file and not Path(file).is_file():
        raise _unusable("SSL_CERT_FILE", file, "there is no such file")
    if folders and not any(Path(folder).is_dir() for folder in folders.split(os.pathsep)):
        raise _unusable("SSL_CERT_DIR", folders, "there is no such folder")
    try:
        return ssl.create_default_context(cafile=file or None, capath=folders or None)
    except OSError as error:  # ssl.SSLError is an OSError
        name, value = ("SSL_CERT_FILE", file) if file else ("SSL_CERT_DIR", folders)
        raise _unusable(name, str(value), error.strerror or str(error)) from error


def _unusable(name: str, value: str, reason: str) -> UsageError:
    return UsageError(
        f"{name} names {value}, which cannot be used: {reason}.",
        f"Correct {name}, or unset it to trust the system's certificates.",
    )


def _is_empty(context: ssl.SSLContext) -> bool:
    """Whether OpenSSL's default places hold no authority; those of a folder are read on demand."""
    folder = ssl.get_default_verify_paths().capath
    return not context.cert_store_stats()["x509_ca"] and not (
        folder and any(Path(folder).glob("*.[0-9]"))
    )


def _system_bundle() -> str | None:
    return next((path for path in _BUNDLES if Path(path).is_file()), None)


def _certifi_bundle() -> str:
    import certifi  # noqa: PLC0415 - seldom needed

    return certifi.where()
