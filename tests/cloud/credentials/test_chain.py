"""The order in which credentials are looked for, and which role is assumed with them."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from orchestrator.errors import CredentialError
from orchestrator.simulator import DEFAULT_KEY, Settings, Simulator, SimulatorOptions

from .stored import ENVIRONMENT, SECRET, find, write_ini, write_tccli

pytestmark = pytest.mark.anyio

ROLE = "qcs::cam::uin/100000000001:roleName/exporter"


@pytest.fixture
async def simulator(anyio_backend: str) -> AsyncIterator[Simulator]:
    """Run a simulator in which this machine is an instance with a role."""
    settings = Settings(instance_role="exporter")
    async with Simulator(SimulatorOptions(settings=settings)) as running:
        yield running


def requests(simulator: Simulator, service: str) -> int:
    """Return how many requests a service has received."""
    return sum(entry.service == service for entry in simulator.ledger)


@pytest.mark.parametrize("profile", ["default", "production"])
async def test_environment_is_first_for_every_profile(tmp_path: Path, profile: str) -> None:
    """The credential of the environment is used although a file holds another."""
    write_tccli(tmp_path, profile, secretId="AKIDfile", secretKey="x")
    source = await find(tmp_path, ENVIRONMENT, profile)
    assert (await source.current()).secret_id == "AKIDenv"


async def test_tccli_profile_precedes_the_shared_file(tmp_path: Path) -> None:
    """The profile's own tccli file is used although the shared file has its section."""
    write_tccli(tmp_path, "night", secretId="AKIDtccli", secretKey=SECRET)
    write_ini(tmp_path, "[night]\nsecret_id = AKIDini\nsecret_key = x\n")
    assert (await (await find(tmp_path, profile="night")).current()).secret_id == "AKIDtccli"


async def test_shared_file_is_used_after_an_empty_tccli_profile(tmp_path: Path) -> None:
    """A tccli file without a key does not end the search."""
    write_tccli(tmp_path, "night")
    write_ini(tmp_path, "[night]\nsecret_id = AKIDini\nsecret_key = x\n")
    assert (await (await find(tmp_path, profile="night")).current()).secret_id == "AKIDini"


async def test_default_section_is_not_used_for_other_profiles(tmp_path: Path) -> None:
    """A profile without a section of its own has no credential in the shared file."""
    write_ini(tmp_path, f"[default]\nsecret_id = AKIDini\nsecret_key = {SECRET}\n")
    with pytest.raises(CredentialError, match="No Tencent Cloud credentials for profile 'night'"):
        await find(tmp_path, profile="night")


async def test_error_lists_all_places_in_order(tmp_path: Path) -> None:
    """If nothing is found, the message names every place in the order of the search."""
    with pytest.raises(CredentialError) as caught:
        await find(tmp_path)
    message = caught.value.message
    places = [
        "TENCENTCLOUD_SECRET_ID",
        "default.credential",
        ".tencentcloud/credentials [default]",
        "the instance's role (The metadata service at",
    ]
    assert sorted(places, key=message.index) == places
    assert "tccli configure" in caught.value.remedy


@pytest.mark.parametrize("profile", [None, {"type": "cvm-role"}])
async def test_instances_role_is_used_last_or_if_the_profile_says_so(
    simulator: Simulator, tmp_path: Path, profile: dict[str, str] | None
) -> None:
    """It is used if nothing is stored, or if tccli's profile names it."""
    if profile is not None:
        write_tccli(tmp_path, **profile)
        write_ini(tmp_path, "[default]\nsecret_id = AKIDini\nsecret_key = x\n")
    credential = await (await find(tmp_path, endpoint=simulator.url)).current()
    assert credential.secret_id.startswith("AKIDlent")
    assert credential.token is not None
    assert credential.expires_at is not None
    assert requests(simulator, "metadata") == 2


@pytest.mark.parametrize("where", ["environment", "profile", "instance"])
async def test_role_is_assumed_with_any_credential(
    simulator: Simulator, tmp_path: Path, where: str
) -> None:
    """The credential of the environment, of tccli's profile or of the instance assumes a role."""
    environ = {"TENCENTCLOUD_ROLE_ARN": ROLE}
    if where == "environment":
        environ["TENCENTCLOUD_SECRET_ID"] = DEFAULT_KEY.secret_id
        environ["TENCENTCLOUD_SECRET_KEY"] = DEFAULT_KEY.secret_key
    elif where == "profile":
        key = {"secretId": DEFAULT_KEY.secret_id, "secretKey": DEFAULT_KEY.secret_key}
        write_tccli(tmp_path, **key, **{"role-arn": ROLE, "role-session-name": "night"})
        environ = {}
    credential = await (await find(tmp_path, environ, endpoint=simulator.url)).current()
    assert credential.secret_id.startswith("AKIDlent")
    assert requests(simulator, "sts") == 1


async def test_instance_without_a_role_is_part_of_the_error(
    simulator: Simulator, tmp_path: Path
) -> None:
    """If no place holds a credential and the instance has no role, the message says both."""
    simulator.change(instance_role="")
    with pytest.raises(CredentialError, match="No Tencent Cloud credentials") as caught:
        await find(tmp_path, endpoint=simulator.url)
    assert "the environment" in caught.value.message
    assert "knows no role of this instance" in caught.value.message


async def test_refusal_by_sts_is_not_a_missing_credential(
    simulator: Simulator, tmp_path: Path
) -> None:
    """If the instance has a credential and STS refuses the role, the error is that of STS."""
    simulator.change(absent_roles=("exporter",))
    with pytest.raises(CredentialError, match=r"ResourceNotFound\.RoleNotFound") as caught:
        await find(tmp_path, {"TENCENTCLOUD_ROLE_ARN": ROLE}, endpoint=simulator.url)
    assert "No Tencent Cloud credentials" not in caught.value.message
