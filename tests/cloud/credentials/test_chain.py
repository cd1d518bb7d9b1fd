"""Where keys are looked for, in which order, and what is said when they cannot be used."""

import json
from collections.abc import Mapping
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

from orchestrator.clock import Clock, SystemClock
from orchestrator.cloud.clock_skew import ServerClock
from orchestrator.cloud.credentials.base import Credential, CredentialSource
from orchestrator.cloud.credentials.chain import CredentialProviders, find_credentials
from orchestrator.errors import CredentialError
from tests.cloud.scripted import NOON, HeldClock

SECRET = "s3cr3t-of-nobody"
ENVIRONMENT = {"TENCENTCLOUD_SECRET_ID": "AKIDenv", "TENCENTCLOUD_SECRET_KEY": SECRET}


def write_tccli(home: Path, profile: str = "default", /, **fields: Any) -> Path:
    path = home / ".tccli" / f"{profile}.credential"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(fields))
    return path


def write_ini(home: Path, text: str) -> Path:
    path = home / ".tencentcloud" / "credentials"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


NOWHERE = "http://127.0.0.1:9"
"""Nobody listens there, as nobody does for an instance's role on a machine that is none."""


async def find(
    profile: str, environ: Mapping[str, str], home: Path, *, clock: Clock | None = None
) -> CredentialSource:
    lenders = CredentialProviders(NOWHERE, NOWHERE, ServerClock(clock or SystemClock()), _notify)
    return await find_credentials(profile, environ, home, lenders)


def _notify(_sentence: str) -> None: ...


def found(profile: str, environ: Mapping[str, str], home: Path, **more: Any) -> CredentialSource:
    return anyio.run(partial(find, profile, environ, home, **more))


def refusal(home: Path, environ: dict[str, str] | None = None, profile: str = "default") -> str:
    with pytest.raises(CredentialError) as caught:
        found(profile, environ or {}, home, clock=HeldClock())
    assert SECRET not in str(caught.value)
    assert caught.value.remedy
    return caught.value.message


async def keys_of(source: CredentialSource) -> Credential:
    return await source.current()


@pytest.mark.anyio
async def test_the_environment_comes_first(tmp_path: Path) -> None:
    """Keys of the environment are taken although a file holds some, with their token."""
    write_tccli(tmp_path, secretId="AKIDfile", secretKey="x")
    source = await find("default", {**ENVIRONMENT, "TENCENTCLOUD_TOKEN": "t"}, tmp_path)
    assert await keys_of(source) == Credential("AKIDenv", SECRET, "t")


@pytest.mark.anyio
async def test_the_environment_serves_every_profile(tmp_path: Path) -> None:
    """Keys of the environment apply whatever the profile is called."""
    source = await find("production", ENVIRONMENT, tmp_path)
    assert (await keys_of(source)).secret_id == "AKIDenv"


@pytest.mark.anyio
async def test_a_tccli_profile_comes_before_the_shared_file(tmp_path: Path) -> None:
    """The profile's own tccli file is taken although the shared file has the section."""
    write_tccli(tmp_path, "night", secretId="AKIDtccli", secretKey=SECRET, token="t")
    write_ini(tmp_path, "[night]\nsecret_id = AKIDini\nsecret_key = x\n")
    source = await find("night", {}, tmp_path)
    assert await keys_of(source) == Credential("AKIDtccli", SECRET, "t")


@pytest.mark.anyio
@pytest.mark.parametrize("profile", ["default", "night"])
async def test_the_shared_file_serves_the_section_of_the_profile(
    tmp_path: Path, profile: str
) -> None:
    """A section named like the profile holds its keys; a percent sign in them is no riddle."""
    write_ini(tmp_path, f"[{profile}]\nsecret_id = AKIDini\nsecret_key = {SECRET}%x\n")
    source = await find(profile, {}, tmp_path)
    assert await keys_of(source) == Credential("AKIDini", f"{SECRET}%x")


def test_the_default_section_serves_no_other_profile(tmp_path: Path) -> None:
    """A profile without a section of its own has no keys in the shared file."""
    write_ini(tmp_path, f"[default]\nsecret_id = AKIDini\nsecret_key = {SECRET}\n")
    assert "No Tencent Cloud keys for profile 'night'" in refusal(tmp_path, profile="night")


def test_nothing_found_lists_the_places_in_order(tmp_path: Path) -> None:
    """The message names every place that was looked at, in the order of looking."""
    message = refusal(tmp_path)
    places = ["TENCENTCLOUD_SECRET_ID", "default.credential", ".tencentcloud/credentials [default]"]
    assert sorted(places, key=message.index) == places


@pytest.mark.parametrize("fields", [{}, {"secretId": "", "secretKey": None}])
def test_a_tccli_file_without_keys_is_passed_over(tmp_path: Path, fields: dict[str, Any]) -> None:
    """A file that tccli wrote before any key was entered counts as empty."""
    write_tccli(tmp_path, **fields)
    assert "No Tencent Cloud keys" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        (
            {"TENCENTCLOUD_SECRET_KEY": SECRET},
            "TENCENTCLOUD_SECRET_KEY is set but TENCENTCLOUD_SECRET_ID is not.",
        ),
        (
            {"TENCENTCLOUD_SECRET_ID": "AKIDenv", "TENCENTCLOUD_SECRET_KEY": ""},
            "TENCENTCLOUD_SECRET_ID is set but TENCENTCLOUD_SECRET_KEY is not.",
        ),
        (
            {**ENVIRONMENT, "TENCENTCLOUD_SECRET_KEY": f"{SECRET}\n"},
            "TENCENTCLOUD_SECRET_KEY has blanks around it.",
        ),
        (
            {**ENVIRONMENT, "TENCENTCLOUD_SECRET_ID": " AKIDenv"},
            "TENCENTCLOUD_SECRET_ID has blanks around it.",
        ),
        (
            {**ENVIRONMENT, "TENCENTCLOUD_TOKEN": f"{SECRET}é"},
            "TENCENTCLOUD_TOKEN has characters that no key has.",
        ),
    ],
)
def test_faults_of_the_environment_name_the_variable(
    tmp_path: Path, environ: dict[str, str], message: str
) -> None:
    """Half a pair, blanks and odd characters are refused by the variable's name."""
    assert refusal(tmp_path, environ) == message


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"secretId": "AKIDfile"}, "secretId is set but secretKey is not."),
        ({"secretKey": SECRET}, "secretKey is set but secretId is not."),
        ({"secretId": "AKIDfile", "secretKey": f" {SECRET}"}, "secretKey has blanks around it."),
        ({"secretId": 7, "secretKey": SECRET}, "secretId has characters that no key has."),
    ],
)
def test_faults_of_a_tccli_file_name_file_and_field(
    tmp_path: Path, fields: dict[str, Any], message: str
) -> None:
    """Half a pair, blanks and wrong types are refused by file and field."""
    path = write_tccli(tmp_path, **fields)
    assert refusal(tmp_path) == f"{path}: {message}"


def test_faults_of_the_shared_file_name_file_and_section(tmp_path: Path) -> None:
    """Half a pair in the shared file is refused by file, section and key."""
    path = write_ini(tmp_path, f"[default]\nsecret_key = {SECRET}\n")
    expected = f"{path} [default]: secret_key is set but secret_id is not."
    assert refusal(tmp_path) == expected


@pytest.mark.parametrize(
    "text", [SECRET, f'"{SECRET}"', f'{{"secretKey": "{SECRET}"', "", "[" * 9999]
)
def test_an_unreadable_tccli_file_is_named_not_quoted(tmp_path: Path, text: str) -> None:
    """What is no JSON object is refused by the file's name, without a word of its content."""
    path = write_tccli(tmp_path)
    path.write_text(text)
    assert refusal(tmp_path) == f"{path} is not a JSON object."


@pytest.mark.parametrize("text", [SECRET, f"[default]\n{SECRET}\n", f"[a]\n[a]\nx={SECRET}"])
def test_an_unreadable_shared_file_is_named_not_quoted(tmp_path: Path, text: str) -> None:
    """What is no INI file is refused by the file's name, without the line at fault."""
    path = write_ini(tmp_path, text)
    assert refusal(tmp_path) == f"{path} is not a readable INI file."


def test_a_file_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    """A place that exists but cannot be read is an error, not a missing place."""
    path = tmp_path / ".tccli" / "default.credential"
    path.mkdir(parents=True)
    assert refusal(tmp_path) == f"{path} cannot be read: Is a directory."


def test_a_file_in_another_encoding_is_named(tmp_path: Path) -> None:
    """Bytes that are no UTF-8 are refused by the file's name."""
    path = write_tccli(tmp_path)
    path.write_bytes(b"\xff\xfe\x00" + SECRET.encode())
    assert refusal(tmp_path) == f"{path} is not UTF-8 text."


@pytest.mark.anyio
async def test_a_byte_order_mark_does_not_matter(tmp_path: Path) -> None:
    """A file saved by an editor that writes a byte order mark is read."""
    path = write_tccli(tmp_path, secretId="AKIDfile", secretKey=SECRET)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert (await keys_of(await find("default", {}, tmp_path))).secret_id == "AKIDfile"


@pytest.mark.parametrize("kind", ["oauth", "sso"])
def test_an_expired_login_says_to_log_in_again(tmp_path: Path, kind: str) -> None:
    """A login of tccli whose time is up is refused with the command that renews it."""
    expired = int((NOON - timedelta(seconds=1)).timestamp())
    write_tccli(
        tmp_path, type=kind, secretId="AKIDtmp", secretKey=SECRET, token="t", expiresAt=expired
    )
    with pytest.raises(CredentialError, match="expired at 2026-03-01") as caught:
        found("default", {}, tmp_path, clock=HeldClock())
    assert "Log in again with: tccli" in caught.value.remedy


@pytest.mark.parametrize("moment", ["soon", True, [1], 1e400])
def test_an_unreadable_expiry_is_named(tmp_path: Path, moment: object) -> None:
    """An expiry that is no time in seconds is refused by the file's name."""
    path = write_tccli(tmp_path, secretId="AKIDtmp", secretKey=SECRET, expiresAt=moment)
    assert refusal(tmp_path) == f"{path}: expiresAt is not a time in seconds."


@pytest.mark.anyio
async def test_keys_that_expired_are_read_again(tmp_path: Path) -> None:
    """Once a login has expired, the file is read again for the one that followed it."""
    clock = HeldClock()
    login = {"type": "oauth", "secretKey": SECRET, "token": "t"}
    noon = int(NOON.timestamp())
    write_tccli(tmp_path, **login, secretId="AKIDfirst", expiresAt=noon + 60)
    source = await find("default", {}, tmp_path, clock=clock)
    write_tccli(tmp_path, **login, secretId="AKIDsecond", expiresAt=noon + 7200)
    assert (await source.current()).secret_id == "AKIDfirst"
    clock.moment += timedelta(seconds=60)
    assert (await source.current()).secret_id == "AKIDsecond"
    assert (await source.current()).expires_at == NOON + timedelta(seconds=7200)


@pytest.mark.anyio
async def test_a_renewal_reads_the_place_again(tmp_path: Path) -> None:
    """Keys written after the start are found by a renewal, and kept."""
    environ = dict(ENVIRONMENT)
    source = await find("default", environ, tmp_path)
    environ["TENCENTCLOUD_SECRET_ID"] = "AKIDrotated"
    assert (await source.current()).secret_id == "AKIDenv"
    assert (await source.renew()).secret_id == "AKIDrotated"
    assert (await source.current()).secret_id == "AKIDrotated"


@pytest.mark.anyio
async def test_keys_that_are_gone_are_an_error(tmp_path: Path) -> None:
    """A renewal that finds the place empty says which place it was."""
    path = write_tccli(tmp_path, secretId="AKIDfile", secretKey=SECRET)
    source = await find("default", {}, tmp_path)
    path.unlink()
    with pytest.raises(CredentialError, match=r"gone from .*default\.credential"):
        await source.renew()


def test_a_credential_shows_no_secret(tmp_path: Path) -> None:
    """Neither a credential nor its source shows key or token."""
    credential = Credential("AKIDshown", SECRET, f"{SECRET}-token")
    source = found("default", ENVIRONMENT, tmp_path)
    shown = repr(credential) + str(credential) + repr(source) + str(source)
    assert SECRET not in shown
    assert "AKIDshown" in shown
