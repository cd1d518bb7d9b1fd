"""Trusted certificates: the environment's, else the system's, else certifi's."""

import ssl
from pathlib import Path

import pytest

from orchestrator.cloud import tls_trust
from orchestrator.cloud.tls_trust import trusted_certificates
from orchestrator.errors import UsageError
from tests.certificates import self_signed


def authorities(context: ssl.SSLContext) -> int:
    """Return how many authorities a context holds."""
    return context.cert_store_stats()["x509"]


def test_file_of_the_environment_is_trusted(tmp_path: Path) -> None:
    """With SSL_CERT_FILE only its certificates are trusted, verified as strictly as others."""
    _, certificate = self_signed(tmp_path)
    context = trusted_certificates(str(certificate), None)
    assert authorities(context) == 1
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname


def test_folder_of_the_environment_is_trusted(tmp_path: Path) -> None:
    """SSL_CERT_DIR may name several folders, of which one must exist."""
    trusted_certificates(None, f"/not/there:{tmp_path}")


@pytest.mark.parametrize(
    ("name", "values"),
    [("SSL_CERT_FILE", ("/not/there.pem", None)), ("SSL_CERT_DIR", (None, "/not/there.pem"))],
)
def test_missing_path_is_named(name: str, values: tuple[str | None, str | None]) -> None:
    """The message names the variable and its value."""
    with pytest.raises(UsageError, match=f"{name} names /not/there.pem"):
        trusted_certificates(*values)


def test_file_without_certificates_is_named(tmp_path: Path) -> None:
    """A file without certificates cannot be used."""
    (tmp_path / "empty.pem").write_text("no certificate\n")
    with pytest.raises(UsageError, match=r"SSL_CERT_FILE names .*empty\.pem"):
        trusted_certificates(str(tmp_path / "empty.pem"), None)


def test_folder_instead_of_a_file_is_named(tmp_path: Path) -> None:
    """SSL_CERT_FILE must not name a folder."""
    with pytest.raises(UsageError, match="SSL_CERT_FILE"):
        trusted_certificates(str(tmp_path), None)


def test_certifi_is_trusted_if_the_system_has_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """For example in a container without ca-certificates."""
    monkeypatch.setattr(ssl, "create_default_context", _empty_context)
    monkeypatch.setattr(tls_trust, "_SYSTEM_BUNDLES", ())
    monkeypatch.setattr(ssl, "get_default_verify_paths", _no_paths)
    assert authorities(trusted_certificates.__wrapped__(None, None)) > 50


def test_distributions_bundle_precedes_certifi(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Python with its own OpenSSL still trusts what the system trusts."""
    _, certificate = self_signed(tmp_path)
    monkeypatch.setattr(ssl, "create_default_context", _empty_context)
    monkeypatch.setattr(tls_trust, "_SYSTEM_BUNDLES", ("/not/there.crt", str(certificate)))
    monkeypatch.setattr(ssl, "get_default_verify_paths", _no_paths)
    assert authorities(trusted_certificates.__wrapped__(None, None)) == 1


def _empty_context() -> ssl.SSLContext:
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def _no_paths() -> ssl.DefaultVerifyPaths:
    return ssl.DefaultVerifyPaths("", "", "", "", "", "")
