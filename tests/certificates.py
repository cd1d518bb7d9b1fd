"""Certificates of servers on loopback, made by the machine's own openssl."""

import shutil
import ssl
import subprocess
from pathlib import Path

import pytest


def self_signed(folder: Path, name: str = "") -> tuple[ssl.SSLContext, Path]:
    """A server's side of TLS, and its certificate, which nobody vouches for.

    Args:
        name: of the host that it is for; without one it is for 127.0.0.1.
    """
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("without openssl there is no certificate")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    made_by = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=127.0.0.1"]
    made_to = [
        "-addext",
        f"subjectAltName={f'DNS:{name}' if name else 'IP:127.0.0.1'}",
        "-keyout",
        str(key),
    ]
    made = [*made_by, *made_to, "-out", str(certificate)]
    subprocess.run(made, check=True, capture_output=True, timeout=30)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context, certificate
