"""Whose certificates are trusted: what the environment names, else the system's, else certifi's."""

import ssl
from pathlib import Path

import pytest

from orchestrator.cloud import tls_trust
from orchestrator.cloud.tls_trust import trusted_certificates
from orchestrator.errors import UsageError
from tests.certificates import self_signed


def authorities(context: ssl.SSLContext) -> int:
    """How many authorities a context holds."""
    return context.cert_store_stats()["x509"]


def test_a_file_of_the_environment_is_trusted(tmp_path: Path) -> None:
    """SSL_CERT_FILE alone is trusted where it is set, verified as strictly as ever."""
    _, certificate = self_signed(tmp_path)
    context = trusted_certificates({"SSL_CERT_FILE": str(certificate)})
    assert authorities(context) == 1
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname


def test_a_folder_of_the_environment_is_trusted(tmp_path: Path) -> None:
    """SSL_CERT_DIR may name several folders, of which one has to be there."""
    trusted_certificates({"SSL_CERT_DIR": f"/not/there:{tmp_path}"})


@pytest.mark.parametrize("name", ["SSL_CERT_FILE", "SSL_CERT_DIR"])
def test_a_place_that_is_not_there_is_named(name: str) -> None:
    """The message names the variable and what it says."""
    with pytest.raises(UsageError, match=f"{name} names /not/there.pem"):
        trusted_certificates({name: "/not/there.pem"})


def test_a_file_without_certificates_is_named(tmp_path: Path) -> None:
    """A file that holds none is of no use, whatever OpenSSL calls that."""
    (tmp_path / "empty.pem").write_text("no certificate\n")
    with pytest.raises(UsageError, match=r"SSL_CERT_FILE names .*empty\.pem"):
        trusted_certificates({"SSL_CERT_FILE": str(tmp_path / "empty.pem")})


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    """SSL_CERT_FILE that names a folder is told as what it is."""
    with pytest.raises(UsageError, match="SSL_CERT_FILE"):
        trusted_certificates({"SSL_CERT_FILE": str(tmp_path)})


def test_where_the_system_has_none_certifi_is_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container without ca-certificates, or with a Python that looks elsewhere."""
    monkeypatch.setattr(ssl, "create_default_context", _empty_context)
    monkeypatch.setattr(tls_trust, "_BUNDLES", ())
    monkeypatch.setattr(ssl, "get_default_verify_paths", _no_paths)
    assert authorities(trusted_certificates({})) > 50


def test_a_bundle_of_the_distribution_comes_before_certifi(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Python with an OpenSSL of its own still trusts what the system does."""
    _, certificate = self_signed(tmp_path)
    monkeypatch.setattr(ssl, "create_default_context", _empty_context)
    monkeypatch.setattr(tls_trust, "_BUNDLES", ("/not/there.crt", str(certificate)))
    monkeypatch.setattr(ssl, "get_default_verify_paths", _no_paths)
    assert authorities(trusted_certificates({})) == 1


def _empty_context() -> ssl.SSLContext:
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def _no_paths() -> ssl.DefaultVerifyPaths:
    return ssl.DefaultVerifyPaths("", "", "", "", "", "")
