"""Trusted certificates: the environment's, else the system's, else certifi's."""

import shlex
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.cloud import tls_trust
from orchestrator.cloud.tls_trust import remedy_for, trusted_certificates
from orchestrator.errors import UsageError
from tests.certificates import self_signed, signed_by_company


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Start without variables, and forget the certificates that were read."""
    for name in tls_trust._VARIABLES:
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
    """With SSL_CERT_FILE, only its certificates are trusted.

    Servers are verified as strictly as without it.
    """
    _, certificate = self_signed(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    context = trusted_certificates()
    assert authorities(context) == 1
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname


def test_folder_of_the_environment_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SSL_CERT_DIR may name several folders, of which one must have been prepared."""
    (tmp_path / "0123abcd.0").touch()
    monkeypatch.setenv("SSL_CERT_DIR", f"/not/there:{tmp_path}")
    trusted_certificates()


@pytest.mark.parametrize("name", ["SSL_CERT_FILE", "SSL_CERT_DIR"])
def test_missing_path_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the variable and its value."""
    monkeypatch.setenv(name, "/not/there.pem")
    with pytest.raises(UsageError, match=f"{name} names /not/there.pem"):
        trusted_certificates()


_NONE = "it contains no certificate in PEM (-----BEGIN CERTIFICATE-----)"


@pytest.mark.parametrize("name", ["SSL_CERT_FILE", "CURL_CA_BUNDLE"])
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", _NONE),
        ("<html>log in</html>\n", _NONE),
        ("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", _NONE),
        (
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            "a certificate in it is damaged",
        ),
    ],
)
def test_file_without_certificates_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: str, reason: str
) -> None:
    """The message names file, variable and problem, without the words of OpenSSL."""
    file = tmp_path / "bad.pem"
    file.write_text(content)
    monkeypatch.setenv(name, str(file))
    with pytest.raises(UsageError) as caught:
        trusted_certificates()
    assert caught.value.message == f"{name} names {file}, which cannot be used: {reason}."
    assert name in caught.value.remedy


@pytest.mark.parametrize("name", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"])
def test_binary_certificate_is_to_be_converted(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The remedy is a command that works as it is printed."""
    _, certificate = self_signed(tmp_path)
    file = tmp_path / "company ca.cer"
    file.write_bytes(ssl.PEM_cert_to_DER_cert(certificate.read_text()))
    monkeypatch.setenv(name, str(file))
    with pytest.raises(UsageError, match=f"{name} names {file}, .* DER") as caught:
        trusted_certificates()
    command = caught.value.remedy.partition(": ")[2]
    assert command == f"openssl x509 -inform der -in '{file}' -out '{file}.pem'"
    subprocess.run(shlex.split(command), check=True, timeout=30)
    monkeypatch.setenv(name, f"{file}.pem")
    assert authorities(trusted_certificates()) == 1


def test_folder_instead_of_a_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`SSL_CERT_FILE` names a file."""
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path))
    with pytest.raises(UsageError, match=r"SSL_CERT_FILE names .*: it is a folder\."):
        trusted_certificates()


def test_quotes_around_a_path_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """`docker run --env-file` keeps them as a part of the value."""
    monkeypatch.setenv("SSL_CERT_FILE", '"/etc/ssl/certs/ca-certificates.crt"')
    with pytest.raises(UsageError, match="it has quotes around it"):
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


@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_bundle_of_other_programs_is_trusted(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """REQUESTS_CA_BUNDLE and CURL_CA_BUNDLE may name a file or a folder to trust.

    SSL_CERT_FILE takes precedence, and then the file or folder is not even read.
    """
    _, certificate = self_signed(tmp_path)
    monkeypatch.setenv(name, str(certificate))
    assert authorities(trusted_certificates()) == 1
    folder = tmp_path / "folder"
    folder.mkdir()
    monkeypatch.setenv(name, str(folder))
    with pytest.raises(UsageError, match=f"{name} names .*rehash"):
        trusted_certificates()
    (folder / "0123abcd.0").touch()
    assert authorities(trusted_certificates()) == 0  # read when they are needed
    monkeypatch.setenv(name, "/not/there.pem")
    with pytest.raises(UsageError, match=f"{name} names /not/there.pem"):
        trusted_certificates()
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    assert authorities(trusted_certificates()) == 1


def test_system_bundle_is_trusted_besides_other_authorities(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A CA of the system bundle is trusted, even if OpenSSL finds others elsewhere."""
    _, certificate = self_signed(tmp_path)
    (tmp_path / "others").mkdir()
    _, other = self_signed(tmp_path / "others")

    def other_openssl() -> ssl.SSLContext:
        context = _empty_context()
        context.load_verify_locations(other)
        return context

    monkeypatch.setattr(ssl, "create_default_context", other_openssl)
    monkeypatch.setattr(tls_trust, "_SYSTEM_BUNDLES", (str(certificate),))
    assert authorities(trusted_certificates()) == 2


@pytest.mark.parametrize("has_others", [False, True])
@pytest.mark.parametrize("content", ["", "no certificate\n", None])
def test_unusable_system_bundle_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None, *, has_others: bool
) -> None:
    """OpenSSL's own authorities remain, or else those of certifi are used."""
    bundle = tmp_path / "bundle.crt"
    bundle.symlink_to("/proc/self/mem") if content is None else bundle.write_text(content)
    _, other = self_signed(tmp_path)

    def openssl() -> ssl.SSLContext:
        context = _empty_context()
        if has_others:
            context.load_verify_locations(other)
        return context

    monkeypatch.setattr(ssl, "create_default_context", openssl)
    monkeypatch.setattr(tls_trust, "_SYSTEM_BUNDLES", (str(bundle),))
    monkeypatch.setattr(ssl, "get_default_verify_paths", _no_paths)
    count = authorities(trusted_certificates())
    assert count == 1 if has_others else count > 50


def test_authority_of_a_company_is_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A company's authority is trusted, although Python 3.13 by itself rejects it.

    OpenSSL, curl and older versions of Python accept such authorities.
    """
    server_context, authority = signed_by_company(tmp_path)
    monkeypatch.setattr(tls_trust, "_SYSTEM_BUNDLES", (str(authority),))
    context = trusted_certificates()
    assert context.verify_flags & ssl.VERIFY_X509_PARTIAL_CHAIN
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(to_client, to_server, server_hostname="127.0.0.1")
    server = server_context.wrap_bio(to_server, to_client, server_side=True)
    for side in (client, server):
        with pytest.raises(ssl.SSLWantReadError):
            side.do_handshake()
    client.do_handshake()


@pytest.mark.parametrize("number", [10, 9, 62, 64, 18, 19, 20])
def test_remedy_depends_on_what_is_wrong(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong host or time is not mended by another authority."""
    monkeypatch.setattr(tls_trust, "_SYSTEM_BUNDLES", ("/etc/os-release",))
    error = ssl.SSLCertVerificationError("m")
    error.verify_code = number
    remedy = remedy_for(error)
    assert ("the system's authorities (/etc/os-release)" in remedy) == (number in {18, 19, 20})
    assert ("clock" in remedy) == (number in {9, 10})
    monkeypatch.setenv("SSL_CERT_FILE", "/etc/corp.pem")
    assert ("/etc/corp.pem (SSL_CERT_FILE)" in remedy_for(error)) == (number in {18, 19, 20})
    # never what is already done
    assert ", or set SSL_CERT_FILE" not in remedy_for(error)


def _empty_context() -> ssl.SSLContext:
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def _no_paths() -> ssl.DefaultVerifyPaths:
    return ssl.DefaultVerifyPaths("", "", "", "", "", "")
