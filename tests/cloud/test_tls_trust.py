"""Trusted certificates: the environment's, else the system's, else certifi's."""

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.cloud import tls_trust
from orchestrator.cloud.tls_trust import trusted_certificates
from orchestrator.errors import UsageError
from tests.certificates import self_signed


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Start without variables, and forget the certificates that were read."""
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
    tls_trust._context.cache_clear()
    yield
    tls_trust._context.cache_clear()


def authorities(context: ssl.SSLContext) -> int:
    """Return how many authorities a context holds."""
    return context.cert_store_stats()["x509"]


def test_file_of_the_environment_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With SSL_CERT_FILE only its certificates are trusted, verified as strictly as others."""
    _, certificate = self_signed(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    context = trusted_certificates()
    assert authorities(context) == 1
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname


def test_folder_of_the_environment_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SSL_CERT_DIR may name several folders, of which one must exist."""
    monkeypatch.setenv("SSL_CERT_DIR", f"/not/there:{tmp_path}")
    trusted_certificates()


@pytest.mark.parametrize("name", ["SSL_CERT_FILE", "SSL_CERT_DIR"])
def test_missing_path_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the variable and its value."""
    monkeypatch.setenv(name, "/not/there.pem")
    with pytest.raises(UsageError, match=f"{name} names /not/there.pem"):
        trusted_certificates()


def test_file_without_certificates_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file without certificates cannot be used."""
    (tmp_path / "empty.pem").write_text("no certificate\n")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "empty.pem"))
    with pytest.raises(UsageError, match=r"SSL_CERT_FILE names .*empty\.pem"):
        trusted_certificates()


def test_folder_instead_of_a_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SSL_CERT_FILE must not name a folder."""
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path))
    with pytest.raises(UsageError, match="SSL_CERT_FILE"):
        trusted_certificates()


def test_certifi_is_trusted_if_the_system_has_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """For example in a container without ca-certificates."""
    monkeypatch.setattr(ssl, "create_default_context", _empty_context)
    monkeypatch.setattr(tls_trust, "_SYSTEM_BUNDLES", ())
    monkeypatch.setattr(ssl, "get_default_verify_paths", _no_paths)
    assert authorities(trusted_certificates()) > 50


def test_distributions_bundle_precedes_certifi(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Python with its own OpenSSL still trusts what the system trusts."""
    _, certificate = self_signed(tmp_path)
    monkeypatch.setattr(ssl, "create_default_context", _empty_context)
    monkeypatch.setattr(tls_trust, "_SYSTEM_BUNDLES", ("/not/there.crt", str(certificate)))
    monkeypatch.setattr(ssl, "get_default_verify_paths", _no_paths)
    assert authorities(trusted_certificates()) == 1


def _empty_context() -> ssl.SSLContext:
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def _no_paths() -> ssl.DefaultVerifyPaths:
    return ssl.DefaultVerifyPaths("", "", "", "", "", "")
