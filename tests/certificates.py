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
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs the program openssl")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    names = f"subjectAltName={f'DNS:{name}' if name else 'IP:127.0.0.1'}"
    command = [
        *(openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=127.0.0.1"),
        *("-addext", names, "-keyout", str(key), "-out", str(certificate)),
    ]
    subprocess.run(command, check=True, capture_output=True, timeout=30)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context, certificate
