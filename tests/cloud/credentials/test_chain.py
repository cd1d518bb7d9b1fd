"""The order in which credentials are looked for, and which role is assumed with them."""

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

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
async def test_environment_is_first_for_profiles_that_nobody_named(
    tmp_path: Path, profile: str
) -> None:
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
    """A credential of the environment, of tccli or of the instance assumes a role."""
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
    """If nothing is stored and the instance has no role, the message says both."""
    simulator.change(instance_role="")
    with pytest.raises(CredentialError, match="No Tencent Cloud credentials") as caught:
        await find(tmp_path, endpoint=simulator.url)
    assert "the environment" in caught.value.message
    assert "knows no role of this instance" in caught.value.message


async def test_refusal_by_sts_is_not_a_missing_credential(
    simulator: Simulator, tmp_path: Path
) -> None:
    """If STS refuses to let the instance assume the role, the error is that of STS."""
    simulator.change(absent_roles=("exporter",))
    with pytest.raises(CredentialError, match=r"ResourceNotFound\.RoleNotFound") as caught:
        await find(tmp_path, {"TENCENTCLOUD_ROLE_ARN": ROLE}, endpoint=simulator.url)
    assert "No Tencent Cloud credentials" not in caught.value.message


KEYS = f"secret_id = {DEFAULT_KEY.secret_id}\nsecret_key = {DEFAULT_KEY.secret_key}\n"
B_KEYS = f"[b]\nsecret_id = AKIDini\nsecret_key = {SECRET}\n"


async def test_named_profile_of_tccli_precedes_the_environment(tmp_path: Path) -> None:
    """The keys of a named profile are used, and a note says so.

    The note also names the variables that are not used.
    """
    write_tccli(tmp_path, "b", secretId="AKIDfile", secretKey=SECRET)
    notes: list[str] = []
    environ = {**ENVIRONMENT, "TENCENTCLOUD_TOKEN": "t", "TENCENTCLOUD_ROLE_ARN": ROLE}
    source = await find(tmp_path, environ, "b", is_named=True, notes=notes)
    credential = await source.current()
    assert (credential.secret_id, credential.token) == ("AKIDfile", None)
    assert notes == [
        (
            "Keys: profile b of ~/.tccli/b.credential (TENCENTCLOUD_SECRET_ID in the environment "
            "is not used; TENCENTCLOUD_ROLE_ARN in the environment is not used)."
        )
    ]


@pytest.mark.parametrize(
    ("section", "secret_id", "origin"),
    [
        (
            "b",
            "AKIDini",
            (
                "profile b of ~/.tencentcloud/credentials (TENCENTCLOUD_SECRET_ID in the "
                "environment is not used)"
            ),
        ),
        (
            "other",
            "AKIDenv",
            (
                "TENCENTCLOUD_SECRET_ID and TENCENTCLOUD_SECRET_KEY in the environment (no "
                "credentials file has keys of profile b)"
            ),
        ),
    ],
)
async def test_named_profile_precedes_the_environment_where_the_shared_file_has_it(
    tmp_path: Path, section: str, secret_id: str, origin: str
) -> None:
    """The section of a named profile in the shared file precedes the environment.

    Without such a section, the name only keeps limits and jobs apart.
    """
    write_ini(tmp_path, B_KEYS.replace("[b]", f"[{section}]"))
    notes: list[str] = []
    source = await find(tmp_path, ENVIRONMENT, "b", is_named=True, notes=notes)
    assert (await source.current()).secret_id == secret_id
    assert notes == [f"Keys: {origin}."]


async def test_profile_of_tccli_alone_does_not_precede_the_environment(tmp_path: Path) -> None:
    """The environment precedes the profile of TCCLI_PROFILE, as in tccli.

    The order of tccli is flags, environment, profile; only its --profile turns the environment off
    (source: parse_global_arg of tccli's action_caller.py). Another order would sign with other keys
    than tccli does in the same shell.
    """
    write_tccli(tmp_path, "b", secretId="AKIDfile", secretKey=SECRET)
    notes: list[str] = []
    source = await find(tmp_path, ENVIRONMENT, "b", is_named=False, notes=notes)
    assert (await source.current()).secret_id == "AKIDenv"
    (note,) = notes
    assert "profile b of TCCLI_PROFILE is not used" in note
    assert "--profile b" in note


async def test_broken_file_of_a_named_profile_is_an_error(tmp_path: Path) -> None:
    """The environment's keys do not replace a named profile that cannot be read."""
    write_tccli(tmp_path, "b").write_text("{")
    with pytest.raises(CredentialError, match="is not a JSON object"):
        await find(tmp_path, ENVIRONMENT, "b", is_named=True)
    assert (await (await find(tmp_path, ENVIRONMENT, "b")).current()).secret_id == "AKIDenv"


@pytest.mark.parametrize("place", ["environment", "pod", "instance"])
@pytest.mark.parametrize(
    "text",
    [
        "{}",
        '{"type": "oauth", "oauth": {"openId": "1"}}',
        '{"secretId": ""}',
        "[b]\nregion = ap-singapore\n",
        "[b]\nsecret_id =\nsecret_key =\n",
    ],
)
async def test_named_profile_without_keys_is_refused(
    simulator: Simulator, tmp_path: Path, text: str, place: str
) -> None:
    """No other keys take their place: neither the environment's, nor those of a role."""
    path = write_ini(tmp_path, text) if text.startswith("[") else write_tccli(tmp_path, "b")
    path.write_text(text)
    environ = {"environment": ENVIRONMENT, "pod": {"TKE_ROLE_ARN": ROLE}, "instance": {}}[place]
    with pytest.raises(CredentialError, match=rf"{path}( \[b\])? has no keys\.") as caught:
        await find(tmp_path, environ, "b", is_named=True, endpoint=simulator.url)
    assert caught.value.remedy.endswith("tccli configure --profile b")


async def test_profile_without_keys_may_have_them_in_the_other_file(
    simulator: Simulator, tmp_path: Path
) -> None:
    """A profile without keys in the tccli file may have them in the shared file.

    If nobody has named the profile, it is skipped.
    """
    write_tccli(tmp_path, "b")
    assert (await (await find(tmp_path, ENVIRONMENT, "b")).current()).secret_id == "AKIDenv"
    notes: list[str] = []
    await find(tmp_path, {}, "b", endpoint=simulator.url, notes=notes)
    assert "(no credentials file has keys of profile b)" in notes[0]
    write_ini(tmp_path, B_KEYS)
    source = await find(tmp_path, ENVIRONMENT, "b", is_named=True)
    assert (await source.current()).secret_id == "AKIDini"


@contextmanager
def closed_to_this_user(folder: Path) -> Iterator[None]:
    """Make a folder inaccessible to this process inside the context.

    Root can open every folder, so a process of root becomes another user for this time.
    """
    folder.chmod(0)
    if os.geteuid() == 0:
        os.setresuid(65_534, 65_534, 0)
    try:
        yield
    finally:
        if os.getresuid()[2] == 0:
            os.setresuid(0, 0, 0)
        folder.chmod(0o700)


async def test_closed_home_does_not_hide_the_environment(tmp_path: Path) -> None:
    """A named profile uses the environment if this user cannot open its folder.

    The message does not claim that there is no such profile.
    """
    write_tccli(tmp_path, "b", secretId="AKIDfile", secretKey=SECRET)
    notes: list[str] = []
    with closed_to_this_user(tmp_path / ".tccli"):
        source = await find(tmp_path, ENVIRONMENT, "b", is_named=True, notes=notes)
        with pytest.raises(CredentialError, match=r"b\.credential cannot be read: Permission"):
            await find(tmp_path, {}, "b", is_named=True)
    assert (await source.current()).secret_id == "AKIDenv"
    (note,) = notes
    # the whole home is closed to this user
    folders = "~/.tccli and ~/.tencentcloud"
    assert f"({folders} cannot be opened, so profile b was not looked for)" in note


async def test_missing_home_is_named_only_where_nothing_was_found(tmp_path: Path) -> None:
    """An error names a missing HOME only if nothing was found or a path needs it.

    Files that variables name are read without HOME. An error about an invalid value does not name
    it.
    """
    with pytest.raises(CredentialError, match="No Tencent Cloud credentials") as caught:
        await find(None)
    assert "HOME is not set" in caught.value.message
    assert "credentials [" not in caught.value.message
    quoted = {**ENVIRONMENT, "TENCENTCLOUD_SECRET_KEY": f"'{SECRET}'"}
    with pytest.raises(CredentialError, match="TENCENTCLOUD_SECRET_KEY") as caught:
        await find(None, quoted)
    assert "HOME" not in caught.value.message
    chosen = {"TENCENTCLOUD_CREDENTIALS_FILE": str(tmp_path / "credentials")}
    (tmp_path / "credentials").write_text(B_KEYS)
    notes: list[str] = []
    await find(None, chosen, "b", notes=notes)
    await find(None, ENVIRONMENT, "c", is_named=True, notes=notes)
    assert "HOME" not in "".join(notes)
    with pytest.raises(CredentialError, match="CREDENTIALS_FILE begins with ~, but HOME is not"):
        await find(None, {"TENCENTCLOUD_CREDENTIALS_FILE": "~/credentials"}, "b")


async def test_role_is_assumed_with_the_keys_of_its_source_profile(
    simulator: Simulator, tmp_path: Path
) -> None:
    """Each role of the chain is assumed with the credential of the one before."""
    write_ini(
        tmp_path,
        f"[prod]\nrole_arn = {ROLE}2\nsource_profile = middle\nexternal_id = x1\n"
        f"[middle]\nrole_arn = {ROLE}\nsource_profile = default\n[default]\n{KEYS}",
    )
    notes: list[str] = []
    source = await find(tmp_path, {}, "prod", endpoint=simulator.url, notes=notes)
    assert (await source.current()).secret_id.startswith("AKIDlent")
    assert requests(simulator, "sts") == 2
    origin = (
        "profile prod of ~/.tencentcloud/credentials (keys of its source_profile default), "
        f"role {ROLE}, role {ROLE}2"
    )
    assert notes == [f"Keys: {origin}."]
    assert source.origin == origin


async def test_shared_file_of_all_users_is_read_if_the_user_has_none(tmp_path: Path) -> None:
    """The vendor's SDKs do the same; a file of the user's own hides it."""
    system = tmp_path / "etc" / "credentials"
    system.parent.mkdir()
    system.write_text(B_KEYS)
    notes: list[str] = []
    source = await find(tmp_path, {}, "b", notes=notes)
    assert (await source.current()).secret_id == "AKIDini"
    assert str(system.relative_to(tmp_path)) in notes[0]
    write_ini(tmp_path, "[default]\n")
    with pytest.raises(CredentialError, match="No Tencent Cloud credentials"):
        await find(tmp_path, {}, "b")


@pytest.mark.parametrize("value", ["~/elsewhere/credentials", "{home}/elsewhere/credentials"])
async def test_shared_file_can_be_chosen_as_in_the_go_sdk(tmp_path: Path, value: str) -> None:
    """TENCENTCLOUD_CREDENTIALS_FILE precedes the files that nobody has named."""
    chosen = tmp_path / "elsewhere" / "credentials"
    chosen.parent.mkdir()
    chosen.write_text(B_KEYS)
    write_ini(tmp_path, B_KEYS.replace("AKIDini", "AKIDother"))
    write_tccli(tmp_path, "b", secretId="AKIDtccli", secretKey=SECRET)
    environ = {"TENCENTCLOUD_CREDENTIALS_FILE": value.format(home=tmp_path)}
    assert (await (await find(tmp_path, environ, "b")).current()).secret_id == "AKIDini"


async def test_folder_of_tccli_can_be_chosen_as_in_terraform(tmp_path: Path) -> None:
    """TENCENTCLOUD_SHARED_CREDENTIALS_DIR is the folder of tccli's profiles."""
    write_tccli(tmp_path / "elsewhere", "b", secretId="AKIDtccli", secretKey=SECRET)
    write_tccli(tmp_path, "b", secretId="AKIDother", secretKey=SECRET)
    environ = {"TENCENTCLOUD_SHARED_CREDENTIALS_DIR": str(tmp_path / "elsewhere" / ".tccli")}
    assert (await (await find(tmp_path, environ, "b")).current()).secret_id == "AKIDtccli"


@pytest.mark.parametrize(
    "variable", ["TENCENTCLOUD_CREDENTIALS_FILE", "TENCENTCLOUD_SHARED_CREDENTIALS_DIR"]
)
async def test_variable_that_leads_to_no_keys_is_named(
    simulator: Simulator, tmp_path: Path, variable: str
) -> None:
    """The instance's role does not replace keys that the user has pointed to."""
    with pytest.raises(CredentialError, match=f"{variable} is set, but there are no keys"):
        await find(tmp_path, {variable: str(tmp_path / "missing")}, endpoint=simulator.url)


async def test_profile_of_terraform_is_not_ignored(tmp_path: Path) -> None:
    """TENCENTCLOUD_PROFILE is refused if it differs from the profile to be used.

    It is accepted if the user names a profile, or if the environment has keys.
    """
    write_tccli(tmp_path, secretId="AKIDfile", secretKey=SECRET)
    environ = {"TENCENTCLOUD_PROFILE": "prod"}
    with pytest.raises(CredentialError, match="TENCENTCLOUD_PROFILE names profile 'prod'"):
        await find(tmp_path, environ)
    # named here, or without influence in Terraform, too
    await find(tmp_path, environ, is_named=True)
    await find(tmp_path, {**environ, **ENVIRONMENT})
    await find(tmp_path, {"TENCENTCLOUD_PROFILE": "default"})


async def test_unsupported_variable_is_refused_where_the_environment_counts(
    tmp_path: Path,
) -> None:
    """A named profile of a file is used alone, so that no variable changes who signs."""
    write_tccli(tmp_path, "b", secretId="AKIDfile", secretKey=SECRET)
    environ = {**ENVIRONMENT, "TENCENTCLOUD_CAM_ROLE_NAME": "exporter"}
    with pytest.raises(CredentialError, match="TENCENTCLOUD_CAM_ROLE_NAME is set"):
        await find(tmp_path, environ, "b")
    await find(tmp_path, environ, "b", is_named=True)


@pytest.mark.parametrize("profile", [None, {"type": "cvm-role"}])
async def test_name_of_the_instances_role_is_refused_only_beside_other_keys(
    simulator: Simulator, tmp_path: Path, profile: dict[str, str] | None
) -> None:
    """TENCENTCLOUD_CAM_ROLE_NAME is refused only if other keys would be used.

    Terraform signs with the role of the instance, and so does this program if it finds no keys.
    """
    if profile is not None:
        write_tccli(tmp_path, **profile)
    environ = {"TENCENTCLOUD_CAM_ROLE_NAME": "exporter"}
    source = await find(tmp_path, environ, endpoint=simulator.url)
    assert (await source.current()).secret_id.startswith("AKIDlent")
    with pytest.raises(CredentialError, match="TENCENTCLOUD_CAM_ROLE_NAME is set"):
        await find(tmp_path, {**environ, **ENVIRONMENT}, endpoint=simulator.url)


@pytest.mark.parametrize(
    "environ",
    [
        {"TENCENTCLOUD_TOKEN": SECRET},
        {"TENCENTCLOUD_SECURITY_TOKEN": SECRET},
        {"TENCENTCLOUD_TOKEN": SECRET, "TENCENTCLOUD_SECURITY_TOKEN": "other"},
    ],
)
@pytest.mark.parametrize("is_named", [False, True])
async def test_token_that_was_left_over_is_not_used(
    tmp_path: Path, environ: dict[str, str], *, is_named: bool
) -> None:
    """Without SecretId and SecretKey it signs nothing, so the file's keys are used."""
    write_tccli(tmp_path, secretId="AKIDfile", secretKey=SECRET)
    notes: list[str] = []
    source = await find(tmp_path, environ, is_named=is_named, notes=notes)
    credential = await source.current()
    assert (credential.secret_id, credential.token) == ("AKIDfile", None)
    assert f"({next(iter(environ))} in the environment is not used)" in notes[0]
    assert SECRET not in notes[0]


async def test_keys_of_a_cloud_function_are_named(tmp_path: Path) -> None:
    """The variables of SCF are not read, and the message about the keys says so."""
    write_tccli(tmp_path, secretId="AKIDfile", secretKey=SECRET)
    notes: list[str] = []
    await find(tmp_path, {"TENCENTCLOUD_SECRETID": "AKIDscf"}, notes=notes)
    assert "TENCENTCLOUD_SECRETID in the environment is not used" in notes[0]
    (tmp_path / ".tccli" / "default.credential").unlink()
    with pytest.raises(CredentialError, match="TENCENTCLOUD_SECRETID in the environment is not"):
        await find(tmp_path, {"TENCENTCLOUD_SECRETID": "AKIDscf"})


async def test_instances_role_is_named(simulator: Simulator, tmp_path: Path) -> None:
    """Without any stored keys the message says that the instance's role signs."""
    notes: list[str] = []
    await find(tmp_path, {}, "b", endpoint=simulator.url, notes=notes)
    assert notes == [
        "Keys: the role of this CVM instance (no credentials file has keys of profile b)."
    ]


def write_with_modes(home: Path, file_mode: int, folder_mode: int) -> Path:
    """Write a tccli profile, and set the modes of its file and of the folder.

    Every user can open the home.

    Returns:
        The path of the file.
    """
    home.chmod(0o755)
    path = write_tccli(home, secretId="AKIDfile", secretKey=SECRET)
    path.chmod(file_mode)
    path.parent.chmod(folder_mode)
    return path


@pytest.mark.parametrize(
    ("file_mode", "folder_mode", "is_noted"),
    [(0o644, 0o755, True), (0o640, 0o710, True), (0o644, 0o700, False), (0o600, 0o755, False)],
)
async def test_file_that_others_can_read_is_noted_once(
    file_mode: int, folder_mode: int, is_noted: bool
) -> None:
    """One note names a credentials file that other users can read.

    The tool tccli writes its files with mode 0644 into a folder that only the user can open, so
    this mode alone is not noted.
    """
    notes: list[str] = []
    with TemporaryDirectory(dir="/var/tmp") as name:  # the folder of pytest is closed to others
        path = write_with_modes(Path(name), file_mode, folder_mode)
        await find(path.parents[1], notes=notes)
    found = [note for note in notes if note.startswith("Note: other users can read")]
    assert len(found) == is_noted
    assert all(str(path) in note for note in found)
