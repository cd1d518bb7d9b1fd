"""Stored credentials: when they are read again, and which error is raised if they are gone."""

from datetime import timedelta
from pathlib import Path

import pytest

from orchestrator.errors import CredentialError
from tests.cloud.scripted_server import NOON, FixedClock

from .stored import ENVIRONMENT, SECRET, find, write_tccli

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("kind", ["oauth", "sso"])
async def test_expired_login_says_to_log_in_again(tmp_path: Path, kind: str) -> None:
    """A login of tccli that has expired is refused with the command that renews it."""
    expired = int((NOON - timedelta(seconds=1)).timestamp())
    write_tccli(
        tmp_path, type=kind, secretId="AKIDtmp", secretKey=SECRET, token="t", expiresAt=expired
    )
    with pytest.raises(CredentialError, match="expired at 2026-03-01") as caught:
        await find(tmp_path, clock=FixedClock())
    assert "Log in again with: tccli" in caught.value.remedy


async def test_expired_credential_is_read_again(tmp_path: Path) -> None:
    """Once a login has expired, the file is read again: it may hold a new one."""
    clock = FixedClock()
    login = {"type": "oauth", "secretKey": SECRET, "token": "t"}
    noon = int(NOON.timestamp())
    write_tccli(tmp_path, **login, secretId="AKIDfirst", expiresAt=noon + 60)
    source = await find(tmp_path, clock=clock)
    write_tccli(tmp_path, **login, secretId="AKIDsecond", expiresAt=noon + 7200)
    assert (await source.current()).secret_id == "AKIDfirst"
    clock.moment += timedelta(seconds=60)
    assert (await source.current()).secret_id == "AKIDsecond"
    assert (await source.current()).expires_at == NOON + timedelta(seconds=7200)


async def test_renewal_reads_the_credential_again(tmp_path: Path) -> None:
    """A credential that was replaced after the start is found by a renewal, and kept."""
    environ = dict(ENVIRONMENT)
    source = await find(tmp_path, environ)
    environ["TENCENTCLOUD_SECRET_ID"] = "AKIDrotated"
    assert (await source.current()).secret_id == "AKIDenv"
    assert (await source.renew()).secret_id == "AKIDrotated"
    assert (await source.current()).secret_id == "AKIDrotated"


async def test_removed_credential_is_an_error(tmp_path: Path) -> None:
    """If a renewal finds nothing, the error names the location."""
    path = write_tccli(tmp_path, secretId="AKIDfile", secretKey=SECRET)
    source = await find(tmp_path)
    path.unlink()
    with pytest.raises(CredentialError, match=r"gone from .*default\.credential"):
        await source.renew()


async def test_no_secret_is_shown(tmp_path: Path) -> None:
    """Neither a credential nor its source shows the key or the token."""
    source = await find(tmp_path, {**ENVIRONMENT, "TENCENTCLOUD_TOKEN": f"{SECRET}-token"})
    credential = await source.current()
    shown = repr(credential) + str(credential) + repr(source) + str(source)
    assert SECRET not in shown
    assert "AKIDenv" in shown
