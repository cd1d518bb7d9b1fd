"""The certificate authorities that servers are verified with."""

import os
import re
import shlex
import ssl
import sys
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from orchestrator.errors import UsageError

_VARIABLES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")

_SYSTEM_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)
"""Where Linux distributions store the system's authorities, and curl finds them. A Python with
its own OpenSSL looks in another place."""

_HASHED = re.compile(r"[0-9a-f]{8}\.[0-9]+")
"""File names that OpenSSL looks for in a folder of certificates."""

_NO_CERTIFICATE = "it contains no certificate in PEM (-----BEGIN CERTIFICATE-----)"

_HOST_MISMATCH = frozenset({62, 64})
_NOT_YET_VALID, _EXPIRED = 9, 10
"""Error numbers of OpenSSL (X509_V_ERR_…)."""


@dataclass(frozen=True, slots=True)
class _Source:
    """Where authorities are read from: by which variables, or by none from the system."""

    variables: tuple[str, ...]
    file: str | None = None
    folders: str | None = None

    def __str__(self) -> str:
        paths = " and ".join(filter(None, (self.file, self.folders)))
        if self.variables:
            return f"{paths} ({' and '.join(self.variables)})"
        bundle = _system_bundle()
        return "the system's authorities" + (f" ({bundle})" if bundle else "")


def trusted_certificates() -> ssl.SSLContext:
    """Return a context that verifies servers by the first of these that there is.

    What ``SSL_CERT_FILE`` and ``SSL_CERT_DIR`` name; what ``REQUESTS_CA_BUNDLE`` names, else
    ``CURL_CA_BUNDLE``; the system's authorities; those of certifi.

    Raises:
        UsageError: the variable that decides names something that cannot be used.
    """
    return _context(_source())


def remedy_for(error: ssl.SSLCertVerificationError) -> str:
    """Return what to do about a certificate that was refused."""
    if error.verify_code in _HOST_MISMATCH:
        return (
            "Correct the endpoint: its certificate is for another host. If a proxy or gateway "
            "answers in its place, ask its administrator."
        )
    if error.verify_code == _NOT_YET_VALID:
        return "Synchronize this machine's clock (NTP): the certificate is not valid yet."
    if error.verify_code == _EXPIRED:
        return (
            "Check this machine's clock (NTP); if it is right, the administrator of the endpoint, "
            "or of the proxy that answers in its place, must renew the expired certificate."
        )
    source = _source()
    issuer = "the CA certificate of its issuer (behind a company proxy perhaps the company's)"
    if source.variables:
        names = " and ".join(source.variables)
        return f"Add {issuer} to {source}, or unset {names} if the system trusts it already."
    return f"Add {issuer} to {source}, or set SSL_CERT_FILE to a PEM file that contains it."


def _source() -> _Source:
    values = {name: os.environ[name] for name in _VARIABLES if os.environ.get(name)}
    file, folders = values.get("SSL_CERT_FILE"), values.get("SSL_CERT_DIR")
    if file or folders:
        return _Source(tuple(name for name in _VARIABLES[:2] if name in values), file, folders)
    for name in _VARIABLES[2:]:
        if name in values:
            is_folder = os.path.isdir(values[name])  # noqa: PTH112 - Path.is_dir raises if forbidden
            file, folders = (None, values[name]) if is_folder else (values[name], None)
            return _Source((name,), file, folders)
    return _Source(())


@cache  # reading them takes 30 ms
def _context(source: _Source) -> ssl.SSLContext:
    if source.variables:
        context = _from_environment(source)
    elif sys.platform == "darwin":
        # OpenSSL cannot read the keychain
        import truststore  # noqa: PLC0415 - installed on macOS only

        return truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    else:
        # not truststore: on Linux it reads the whole bundle for each connection, which takes 20 ms
        context = _from_system()
    # what Python 3.13 adds is asked by no other program, and many companies' authorities fail it
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    # an intermediate authority can be trusted alone, as in curl and Python 3.13
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


def _from_system() -> ssl.SSLContext:
    context = ssl.create_default_context()
    if (bundle := _system_bundle()) is not None:
        # A Python with its own OpenSSL looks for authorities elsewhere. A company's authority may
        # be in the bundle alone. An empty or unreadable bundle must not stop the run.
        with suppress(OSError):
            context.load_verify_locations(cafile=bundle)
    if not _has_authorities(context):
        import certifi  # noqa: PLC0415 - rarely needed

        context.load_verify_locations(cafile=certifi.where())
    return context


def _system_bundle() -> str | None:
    return next((path for path in _SYSTEM_BUNDLES if Path(path).is_file()), None)


def _has_authorities(context: ssl.SSLContext) -> bool:
    # the files of the folder are read when they are needed, so the context does not count them
    folder = ssl.get_default_verify_paths().capath
    return context.cert_store_stats()["x509_ca"] > 0 or bool(folder and _has_hashes(folder))


def _from_environment(source: _Source) -> ssl.SSLContext:
    file, folders, name = source.file, source.folders, source.variables[0]
    try:
        if file and not Path(file).is_file():
            reason = "it is a folder" if Path(file).is_dir() else "there is no such file"
            if file[0] in {"'", '"'}:
                reason = "it has quotes around it"
            raise _unusable(name, file, reason)
        if folders and not file and not any(map(_has_hashes, folders.split(os.pathsep))):
            reason = "it is no folder of certificates, prepared by `openssl rehash`"
            raise _unusable(name, folders, reason)
        return ssl.create_default_context(cafile=file, capath=folders)
    except OSError as error:  # of which ssl.SSLError is a subclass
        if file and _is_der(file):
            command = shlex.join(
                ["openssl", "x509", "-inform", "der", "-in", file, "-out", f"{file}.pem"]
            )
            raise UsageError(
                f"{name} names {file}, which cannot be used: it is a certificate in DER (binary).",
                f"Convert it to PEM, and name that file: {command}",
            ) from error
        reason = error.strerror or str(error)
        if file and isinstance(error, ssl.SSLError):
            has_any = b"CERTIFICATE-----" in Path(file).read_bytes()
            reason = "a certificate in it is damaged" if has_any else _NO_CERTIFICATE
        raise _unusable(name, file or str(folders), reason) from error


def _is_der(file: str) -> bool:
    """Return whether a file holds certificates in the binary form."""
    with suppress(OSError, ValueError):
        content = Path(file).read_bytes()
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=content)
        return True
    return False


def _has_hashes(folder: str) -> bool:
    try:
        return any(_HASHED.fullmatch(name) for name in os.listdir(folder or "."))  # noqa: PTH208 - names are enough
    except OSError:
        return False


def _unusable(name: str, value: str, reason: str) -> UsageError:
    return UsageError(
        f"{name} names {value}, which cannot be used: {reason}.",
        f"Correct {name}, or unset it to trust the system's certificates.",
    )
