"""Credentials in the files of the vendor's tools, and the errors of bad files."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cloud.credentials.base import Credential, Role
from orchestrator.cloud.credentials.stored import (
    StoredCredential,
    read_shared_file,
    read_tccli_profile,
)
from orchestrator.errors import CredentialError

from .stored import SECRET, write_ini, write_tccli


def refusal(read: Callable[[], object]) -> str:
    """Return the message of the error; it has a remedy and shows no secret."""
    with pytest.raises(CredentialError) as caught:
        read()
    assert SECRET not in str(caught.value)
    assert caught.value.remedy
    return caught.value.message


def test_tccli_profile_is_read(tmp_path: Path) -> None:
    """Key, token, expiry and role of a login by tccli are read."""
    path = write_tccli(
        tmp_path,
        secretId="AKIDtccli",
        secretKey=SECRET,
        token="t",
        expiresAt=1_800_000_000,
        **{"role-arn": "arn", "role-session-name": "night"},
    )
    expires_at = datetime.fromtimestamp(1_800_000_000, UTC)
    assert read_tccli_profile(path) == StoredCredential(
        Credential("AKIDtccli", SECRET, "t", expires_at), roles=(Role("arn", "night"),)
    )


@pytest.mark.parametrize(
    "fields", [{"type": "cvm-role"}, {"use-cvm-role": True}, {"use-cvm-role": "true"}]
)
def test_tccli_profile_can_name_the_instances_role(tmp_path: Path, fields: dict[str, Any]) -> None:
    """Such a profile holds no key of its own."""
    assert read_tccli_profile(write_tccli(tmp_path, **fields)) == StoredCredential(None)


@pytest.mark.parametrize("fields", [{}, {"secretId": "", "secretKey": None}])
def test_tccli_profile_without_a_key_is_none(tmp_path: Path, fields: dict[str, Any]) -> None:
    """A file that tccli wrote before any key was entered counts as empty."""
    assert read_tccli_profile(write_tccli(tmp_path, **fields)) is None


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"secretId": "AKIDfile"}, "secretId is set but secretKey is not."),
        ({"secretKey": SECRET}, "secretKey is set but secretId is not."),
        ({"token": SECRET}, "token is set but secretId is not."),
        (
            {"secretId": SECRET, "secretKey": "AKIDfile"},
            "secretKey begins like a SecretId: it and secretId have changed places.",
        ),
        ({"role-arn": "arn"}, "role-arn is set but secretId and secretKey are not."),
        ({"secretId": "AKIDfile", "secretKey": f" {SECRET}"}, "secretKey has spaces around it."),
        ({"secretId": 7, "secretKey": SECRET}, "secretId is not text."),
    ],
)
def test_invalid_value_in_a_tccli_profile_is_named(
    tmp_path: Path, fields: dict[str, Any], message: str
) -> None:
    """Half a pair, spaces and wrong types are refused with file and field."""
    path = write_tccli(tmp_path, **fields)
    assert refusal(lambda: read_tccli_profile(path)) == f"{path}: {message}"


@pytest.mark.parametrize(
    "text", [SECRET, f'"{SECRET}"', f'{{"secretKey": "{SECRET}"', "", "[" * 9999]
)
def test_unreadable_tccli_profile_is_not_quoted(tmp_path: Path, text: str) -> None:
    """The error names the file and shows nothing of its content."""
    path = write_tccli(tmp_path)
    path.write_text(text)
    assert refusal(lambda: read_tccli_profile(path)) == f"{path} is not a JSON object."


def test_remedy_for_a_bad_tccli_profile_names_it(tmp_path: Path) -> None:
    """The command in the remedy writes the bad profile, not the default one."""
    path = tmp_path / "night.credential"
    path.write_text("[]")
    with pytest.raises(CredentialError) as caught:
        read_tccli_profile(path)
    assert caught.value.remedy == "Write a new one with: tccli configure --profile night"


@pytest.mark.parametrize("expiry", ["soon", True, [1], 1e400])
def test_invalid_expiry_is_named(tmp_path: Path, expiry: object) -> None:
    """An expiry that is not a time in seconds is refused with the file's name."""
    path = write_tccli(tmp_path, secretId="AKIDtmp", secretKey=SECRET, expiresAt=expiry)
    expected = f"{path}: expiresAt is not a time in seconds."
    assert refusal(lambda: read_tccli_profile(path)) == expected


@pytest.mark.parametrize("section", ["default", "night"])
def test_section_of_the_shared_file_is_read(tmp_path: Path, section: str) -> None:
    """A percent sign in a value has no special meaning."""
    path = write_ini(tmp_path, f"[{section}]\nsecret_id = AKIDini\nsecret_key = {SECRET}%x\n")
    expected = StoredCredential(Credential("AKIDini", f"{SECRET}%x"))
    assert read_shared_file(path, section) == expected
    assert read_shared_file(path, "other") is None


def test_invalid_section_of_the_shared_file_is_named(tmp_path: Path) -> None:
    """Half a pair is refused with file, section and key."""
    path = write_ini(tmp_path, f"[default]\nsecret_key = {SECRET}\n")
    expected = f"{path} [default]: secret_key is set but secret_id is not."
    assert refusal(lambda: read_shared_file(path, "default")) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SECRET, ", line 1 is not a readable INI file."),
        (f"TENCENTCLOUD_SECRET_KEY={SECRET}\n", ", line 1 is not a readable INI file."),
        (f"[default]\n{SECRET}\n", ", line 2 is not a readable INI file."),
        (f"[a]\n[a]\nx={SECRET}", ", line 2: the section [a] is there twice."),
        (f"[a]\nx={SECRET}\nX=1\n", ", line 3: the section [a] has a name twice."),
    ],
)
def test_unreadable_shared_file_is_not_quoted(tmp_path: Path, text: str, message: str) -> None:
    """The error names file and line, without the text that is wrong."""
    path = write_ini(tmp_path, text)
    assert refusal(lambda: read_shared_file(path, "default")) == f"{path}{message}"


@pytest.mark.parametrize(
    "text",
    [
        f"[default]\r\nsecret_id=AKIDini\r\nsecret_key  =  {SECRET}\r\n",
        f"[default]\nSECRET_ID = AKIDini\nSecret_Key: {SECRET}\n",
        f"[default]\nsecretId = AKIDini\nsecret-key = {SECRET}\nregion = ap-singapore\n",
        f"\ufeff# keys\n\n[default]\nsecret_id = AKIDini\nsecret_key = {SECRET}\ntoken =\n",
        f"[default]\nsecret_id = AKIDini\nsecret_key = {SECRET}\n[DEFAULT]\ntoken = {SECRET}\n",
    ],
)
def test_spelling_of_a_section_does_not_matter(tmp_path: Path, text: str) -> None:
    """Line ends, blanks, and case and hyphens of the names do not matter.

    [DEFAULT] is a section like any other.
    """
    path = write_ini(tmp_path, text)
    assert read_shared_file(path, "default") == StoredCredential(Credential("AKIDini", SECRET))


@pytest.mark.parametrize("name", ["DEFAULT", "Default", " default ", "profile default"])
def test_similar_section_is_named(tmp_path: Path, name: str) -> None:
    """A section that only looks like the profile is neither used nor overlooked."""
    path = write_ini(tmp_path, f"[{name}]\nsecret_id = AKIDini\nsecret_key = {SECRET}\n")
    expected = f"{path} has a section [{name}], but none that is named [default]."
    assert refusal(lambda: read_shared_file(path, "default")) == expected
    assert read_shared_file(path, "night") is None


KEYS = f"secret_id = AKIDini\nsecret_key = {SECRET}\n"
OWN = Credential("AKIDini", SECRET)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            f"[prod]\nrole_arn = arn\nsource_profile = default\n[default]\n{KEYS}",
            StoredCredential(OWN, (Role("arn"),), "default"),
        ),
        (f"[prod]\nrole_arn = arn\n{KEYS}", StoredCredential(OWN, (Role("arn"),))),
        (
            f"[prod]\nrole_arn = arn\nsource_profile = prod\n{KEYS}",
            StoredCredential(OWN, (Role("arn"),)),
        ),
        (
            (
                "[prod]\nrole_arn = arn\nrole_session_name = night\nexternal_id = x1\n"
                f"duration_seconds = 3600\n{KEYS}"
            ),
            StoredCredential(OWN, (Role("arn", "night", "x1", 3600),)),
        ),
        (
            (
                "[prod]\nrole_arn = second\nsession_name = night\nsource_profile = middle\n"
                f"[middle]\nrole_arn = first\nsource_profile = default\n[default]\n{KEYS}"
            ),
            StoredCredential(OWN, (Role("first"), Role("second", "night")), "default"),
        ),
    ],
)
def test_role_of_a_section_is_read(tmp_path: Path, text: str, expected: StoredCredential) -> None:
    """A role uses the keys of its own section or those of its source profile.

    The source profile may have a role, too.
    """
    assert read_shared_file(write_ini(tmp_path, text), "prod") == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "role_arn = arn\nsource_profile = nobody",
            "source_profile is nobody, but the file has no keys in a section [nobody].",
        ),
        (
            "role_arn = arn\nsource_profile = empty\n[empty]\nregion = ap-singapore",
            "source_profile is empty, but the file has no keys in a section [empty].",
        ),
        (
            "role_arn = arn",
            (
                "role_arn is set, but the section has neither secret_id and secret_key nor "
                "source_profile."
            ),
        ),
        (
            "role_arn = arn\nsource_profile = prod",
            (
                "role_arn is set, but the section has neither secret_id and secret_key nor "
                "source_profile."
            ),
        ),
        ("source_profile = default", "source_profile is set but role_arn is not."),
        (
            f"role_arn = arn\nsource_profile = default\n{KEYS}",
            "source_profile is set beside secret_id.",
        ),
        ("role_arn = ${ROLE}", "role_arn is a variable that was not expanded."),
        (
            f"role_arn = arn\nduration_seconds = 1h\n{KEYS}",
            "duration_seconds is not a whole number of seconds from 1 to 43200.",
        ),
        (
            f"mfa_serial = 1\n{KEYS}",
            "mfa_serial is not supported, and without it this program would sign with other keys.",
        ),
        (
            "credential_process = /bin/keys",
            (
                "credential_process is not supported, and without it this program would sign with "
                "other keys."
            ),
        ),
        (f"secretid = AKIDother\n{KEYS}", "secret_id contradicts secretid."),
        (
            f"secret_id = AKIDini ; prod\nsecret_key = {SECRET}",
            "secret_id has a comment behind it.",
        ),
        (f'secret_id = "AKIDini"\nsecret_key = {SECRET}', "secret_id has quotes around it."),
    ],
)
def test_section_that_cannot_be_used_is_named(tmp_path: Path, text: str, message: str) -> None:
    """One sentence names the file and the section, and says what is wrong.

    Settings can be missing, contradictory or not supported.
    """
    path = write_ini(tmp_path, f"[prod]\n{text}\n[default]\n{KEYS}")
    assert refusal(lambda: read_shared_file(path, "prod")) == f"{path} [prod]: {message}"


def test_loop_of_source_profiles_is_named(tmp_path: Path) -> None:
    """Two sections that name each other are refused."""
    path = write_ini(
        tmp_path,
        "[a]\nrole_arn = x\nsource_profile = b\n[b]\nrole_arn = y\nsource_profile = a\n",
    )
    expected = f"{path} [b]: source_profile leads back to [a]."
    assert refusal(lambda: read_shared_file(path, "a")) == expected


def test_missing_files_are_none(tmp_path: Path) -> None:
    """A file that does not exist is not an error."""
    assert read_tccli_profile(tmp_path / "missing") is None
    assert read_shared_file(tmp_path / "missing", "default") is None


def test_file_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    """A path that exists but cannot be read is an error."""
    assert (
        refusal(lambda: read_tccli_profile(tmp_path))
        == f"{tmp_path} cannot be read: Is a directory."
    )
    inside = write_tccli(tmp_path) / "default.credential"
    expected = f"{inside} cannot be read: Not a directory."
    assert refusal(lambda: read_tccli_profile(inside)) == expected


def test_file_in_another_encoding_is_named(tmp_path: Path) -> None:
    """Bytes that are not UTF-8 are refused with the file's name."""
    path = write_tccli(tmp_path)
    path.write_bytes(b"\xff\xfe\x00" + SECRET.encode())
    assert refusal(lambda: read_tccli_profile(path)) == f"{path} is not UTF-8 text."


def test_byte_order_mark_is_ignored(tmp_path: Path) -> None:
    """A file saved by an editor that writes a byte order mark is read."""
    path = write_tccli(tmp_path, secretId="AKIDfile", secretKey=SECRET)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert read_tccli_profile(path) == StoredCredential(Credential("AKIDfile", SECRET))
