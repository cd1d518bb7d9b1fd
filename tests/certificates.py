"""Certificates for servers on loopback, created by the openssl program."""

import shutil
import ssl
import subprocess
from pathlib import Path

import pytest


def self_signed(folder: Path, name: str = "") -> tuple[ssl.SSLContext, Path]:
    """Return a server's TLS context, and its self-signed certificate.

    Args:
        name: host name in the certificate; 127.0.0.1 if empty.
    """
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    _openssl(
        *("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=127.0.0.1"),
        *("-addext", _names(name), "-keyout", str(key), "-out", str(certificate)),
    )
    return _server_context(certificate, key), certificate


def signed_by_company(folder: Path, name: str = "") -> tuple[ssl.SSLContext, Path]:
    """Return a server's TLS context, and the certificate of its private authority.

    The authority has signed the certificate of the server. It is like those of many companies:
    OpenSSL accepts it, but the strict mode of OpenSSL does not.

    Args:
        name: host name in the certificate; 127.0.0.1 if empty.
    """
    key, certificate, authority = folder / "s.key", folder / "s.pem", folder / "ca.pem"
    request, extensions = folder / "s.csr", folder / "s.ext"
    sections = "[req]\ndistinguished_name=dn\n[dn]\n[ca]\nbasicConstraints=CA:true\n"
    (folder / "ca.cnf").write_text(sections)
    extensions.write_text(f"{_names(name)}\nbasicConstraints=CA:false")
    new = ("req", "-newkey", "rsa:2048", "-nodes", "-config", str(folder / "ca.cnf"))
    issuer = ("-keyout", str(folder / "ca.key"), "-out", str(authority))
    _openssl(*new, "-x509", "-extensions", "ca", "-subj", "/CN=Company CA", *issuer)
    _openssl(*new, "-subj", "/CN=server", "-keyout", str(key), "-out", str(request))
    _openssl(
        *("x509", "-req", "-in", str(request), "-extfile", str(extensions), "-CAcreateserial"),
        *("-CA", str(authority), "-CAkey", str(folder / "ca.key"), "-out", str(certificate)),
    )
    return _server_context(certificate, key), authority


def _openssl(*words: str) -> None:
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("needs the program openssl")
    subprocess.run([program, *words], check=True, capture_output=True, timeout=30)


def _names(name: str) -> str:
    return f"subjectAltName={f'DNS:{name}' if name else 'IP:127.0.0.1'}"


def _server_context(certificate: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context
