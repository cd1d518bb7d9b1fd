"""The command line behind a company's proxy, as a user runs it: in its own process."""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from orchestrator.simulator import Duration, Settings, Simulator, SimulatorOptions
from tests.certificates import self_signed, signed_by_company
from tests.cli_process import CommandResult, Shell, wait_for_output
from tests.cloud.scripted_server import http
from tests.end_to_end.harness import BUCKET, REGION
from tests.proxy_servers import ProxyServer, http_proxy, socks_proxy, tls_server

pytestmark = pytest.mark.anyio

PASSWORD, QUOTED = "p@ss:w/rd", "p%40ss%3Aw%2Frd"
NO_PROXY = "localhost,127.0.0.1,::1,[::1],10.0.0.0/8,fd07:b51a:cc66:f0::/64"
HOST = "cloud.example"
RUBBISH = {
    **dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), f"gopher://user:{PASSWORD}@[::1"),
    "NO_PROXY": "[,:,::1/x,[::1],fd07::/64,*.,/",
    **dict.fromkeys(("SSL_CERT_FILE", "SSL_CERT_DIR"), "/not/there"),
    **dict.fromkeys(("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"), "/not/there"),
}


@pytest.fixture
async def cloud(anyio_backend: str) -> AsyncIterator[Simulator]:
    """A cloud without limits, in which any image exists and an export takes 0.2 s."""
    settings = Settings(cap=None, limits={}, duration=Duration(seconds=0.2), queue_delay=0.02)
    async with Simulator(SimulatorOptions(settings=settings)) as running:
        yield running


@asynccontextmanager
async def over_tls(
    cloud: Simulator, folder: Path, *, name: str = HOST
) -> AsyncIterator[tuple[Shell, int]]:
    """Yield a shell and the port of its TLS endpoints.

    Only a proxy can resolve the host name of the endpoints.

    Args:
        name: host name in the certificate.
    """
    context, certificate = signed_by_company(folder, name=name)
    endpoints = dict.fromkeys(
        (f"ORCHESTRATOR_{name}_ENDPOINT" for name in ("CVM", "COS", "STS")), f"https://{HOST}"
    )
    async with tls_server(cloud.port, context) as port:
        shell = Shell.for_cloud(cloud, folder, SSL_CERT_FILE=str(certificate))
        yield with_variables(shell, **endpoints), port


async def enqueue_and_run(shell: Shell, *options: str) -> CommandResult:
    """Enqueue two images and run."""
    where = ("--image", "img-00000001", "--image", "img-00000002", "--region", REGION)
    added = await shell.run("enqueue", *where, "--bucket", BUCKET)
    assert (added.code, added.err.count("Traceback")) == (0, 0), added.err
    ended = await shell.run("run", *options)
    assert "Traceback" not in ended.err
    return ended


def with_variables(shell: Shell, **variables: str) -> Shell:
    """Return the shell with more variables."""
    return Shell(shell.folder, {**shell.variables, **variables})


@pytest.mark.parametrize("kind", ["http", "socks5h"])
async def test_company_laptop(cloud: Simulator, tmp_path: Path, kind: str) -> None:
    """All images are exported through a proxy with a login and a private CA.

    NO_PROXY contains networks.
    """
    login = f"CORP\\user:{PASSWORD}"
    async with AsyncExitStack() as stack:
        shell, port = await stack.enter_async_context(over_tls(cloud, tmp_path))
        server = socks_proxy if kind == "socks5h" else http_proxy
        proxy: ProxyServer = await stack.enter_async_context(server(port, login=login))
        shell = with_variables(
            shell,
            REQUESTS_CA_BUNDLE=shell.variables["SSL_CERT_FILE"],
            SSL_CERT_FILE="",
            ALL_PROXY=f"{kind}://CORP%5Cuser:{QUOTED}@{proxy.address}",
            NO_PROXY=NO_PROXY,
            no_proxy=NO_PROXY,
        )
        ended = await enqueue_and_run(shell)
    assert ended.code == 0, ended.err
    assert "2 verified" in ended.out
    assert set(proxy.asked) == {f"{HOST}:443"}
    assert ended.err.count(f"Proxy: {proxy.address} (ALL_PROXY).") == 1
    assert "NO_PROXY" not in ended.err
    assert_secret_is_nowhere(tmp_path, ended)


@pytest.mark.parametrize(
    ("login", "answer", "reason", "sentence"),
    [
        (
            "user:other",
            b"",
            "407 Proxy Authentication Required",
            "Correct the user name and password in HTTPS_PROXY",
        ),
        (
            "",
            http(status="403 Forbidden"),
            "403 Forbidden",
            f"Ask the administrator of the proxy to allow {HOST}",
        ),
    ],
    ids=["407", "403"],
)
async def test_proxy_that_refuses_halts_the_run(
    cloud: Simulator, tmp_path: Path, login: str, answer: bytes, reason: str, sentence: str
) -> None:
    """A proxy that refuses connections halts the run, and no attempt is charged.

    Nothing is sent. One sentence says what happened, and one sentence says what to do.
    """
    async with (
        over_tls(cloud, tmp_path) as (plain, port),
        http_proxy(port, login=login, answer=answer) as proxy,
    ):
        url = f"http://user:{QUOTED}@{proxy.address}"
        shell = with_variables(plain, HTTPS_PROXY=url)
        ended = await enqueue_and_run(shell)
        shown = await shell.run("show", "1", "--json")
        (halt,) = (await shell.run("run", "--json")).json["halts"]
    assert ended.code == 6, ended.err
    cause = f"{HOST} through the proxy {proxy.address} (HTTPS_PROXY): {reason}"
    assert f"no more exports are sent for endpoint {cause}. Action required: " in ended.err
    assert f"\nAction required: endpoint {cause}. {sentence}" in ended.out
    assert "Client." not in ended.err + ended.out
    assert halt["remedy"].startswith(sentence)
    assert (halt["scope"], halt["name"]) == ("endpoint", HOST)
    assert (halt["code"], halt["message"]) == ("Client.ProxyRefusalError", cause)
    assert shown.json["attempts"] == 0
    assert not cloud.ledger
    assert_secret_is_nowhere(tmp_path, ended, shown)


async def test_proxy_that_refuses_cos_halts_the_run(cloud: Simulator, tmp_path: Path) -> None:
    """Exports that can never be verified are not waited for without end."""
    async with (
        over_tls(cloud, tmp_path) as (plain, port),
        http_proxy(port, answer=http(status="403 Forbidden")) as proxy,
    ):
        shell = with_variables(
            plain,
            HTTPS_PROXY=f"http://{proxy.address}",
            ORCHESTRATOR_CVM_ENDPOINT=cloud.url,
            ORCHESTRATOR_STS_ENDPOINT=cloud.url,
        )
        ended = await enqueue_and_run(shell)
        assert ended.code == 6, ended.err
        assert f"through the proxy {proxy.address} (HTTPS_PROXY): 403 Forbidden" in ended.err
        assert "Ask the proxy's administrator to allow COS" in ended.err
        assert "Client." not in ended.err + ended.out
        unverified = await shell.run("run", "--verify", "off")
    assert unverified.code == 0, unverified.err


async def test_region_whose_cos_is_refused_does_not_halt_the_others(
    cloud: Simulator, tmp_path: Path
) -> None:
    """A proxy that refuses COS of one region does not halt the other regions.

    Each region has its own COS host.
    """
    async with (
        over_tls(cloud, tmp_path, name=f"*.{HOST}") as (plain, port),
        http_proxy(port, answer=http(status="403 Forbidden"), refused="ap-tokyo") as proxy,
    ):
        shell = with_variables(
            plain,
            HTTPS_PROXY=f"http://{proxy.address}",
            ORCHESTRATOR_CVM_ENDPOINT=cloud.url,
            ORCHESTRATOR_STS_ENDPOINT=cloud.url,
            ORCHESTRATOR_COS_ENDPOINT=f"https://{{region}}.{HOST}",
        )
        where = ("--region", "ap-tokyo", "--bucket", BUCKET)
        added = await shell.run("enqueue", "--image", "img-00000003", *where)
        assert added.code == 0, added.err
        ended = await enqueue_and_run(shell)
    assert ended.code == 6, ended.err
    assert "2 verified" in ended.out
    assert f"ap-tokyo/{BUCKET}" in ended.err
    assert "profile default" not in ended.err
    assert "Ask the administrator" not in ended.err
    assert {f"{REGION}.{HOST}:443", f"ap-tokyo.{HOST}:443"} == set(proxy.asked)


@pytest.mark.parametrize("refuses", [False, True], ids=["dead", "403"])
async def test_proxy_that_refuses_sts_is_named(
    cloud: Simulator, tmp_path: Path, *, refuses: bool
) -> None:
    """A warning names a proxy that refuses STS, but not a proxy that is down.

    A proxy that refuses STS prevents the account check in every run.
    """
    async with (
        over_tls(cloud, tmp_path) as (plain, port),
        http_proxy(port, answer=http(status="403 Forbidden")) as proxy,
    ):
        address = proxy.address if refuses else "127.0.0.1:1"
        endpoints = {f"ORCHESTRATOR_{name}_ENDPOINT": cloud.url for name in ("CVM", "COS")}
        shell = with_variables(plain, HTTPS_PROXY=f"http://{address}", **endpoints)
        ended = await enqueue_and_run(shell)
    assert ended.code == 0, ended.err
    assert ended.err.count("the account of profile 'default' was not checked: STS at ") == refuses
    assert (f"through the proxy {proxy.address} (HTTPS_PROXY): 403" in ended.err) == refuses
    assert (f"Ask the administrator of the proxy to allow {HOST}" in ended.err) == refuses


@pytest.mark.parametrize("is_alive", [False, True], ids=["dead", "502"])
async def test_proxy_that_fails_is_named_and_waited_for(
    cloud: Simulator, tmp_path: Path, *, is_alive: bool
) -> None:
    """A failing proxy is treated like a failing endpoint, but the message names it."""
    async with (
        over_tls(cloud, tmp_path) as (plain, port),
        http_proxy(port, answer=http(status="502 Bad Gateway")) as proxy,
    ):
        address = proxy.address if is_alive else "127.0.0.1:1"
        shell = with_variables(plain, HTTPS_PROXY=f"http://user:{QUOTED}@{address}")
        reason = "502 Bad Gateway" if is_alive else "Connection refused"
        words = f"({HOST} through the proxy {address} (HTTPS_PROXY): {reason})"
        await shell.run(
            "enqueue", "--image", "img-00000001", "--region", REGION, "--bucket", BUCKET
        )
        async with shell.start("run") as process:
            await wait_for_output(process, words)
        # the proxy works again, and is now reached: the jobs were not charged
        async with http_proxy(port) as works:
            url = f"http://{works.address}"
            ended = await with_variables(shell, HTTPS_PROXY=url).run("run")
        shown = await shell.run("show", "1", "--json")
    assert ended.code == 0, ended.err
    assert shown.json["attempts"] == 1


async def test_proxy_without_tls_is_told_with_the_first_connection(
    cloud: Simulator, tmp_path: Path
) -> None:
    """A proxy without TLS is reported with the first connection.

    The user does not have to wait until requests to CVM fail too.
    """
    async with (
        over_tls(cloud, tmp_path) as (plain, port),
        http_proxy(port) as proxy,
    ):
        shell = with_variables(plain, HTTPS_PROXY=f"https://user:{QUOTED}@{proxy.address}")
        where = ("--region", REGION, "--bucket", BUCKET)
        await shell.run("enqueue", "--image", "img-00000001", *where)
        async with shell.start("run") as process:
            told = await wait_for_output(process, "must begin with http://")
    assert f"STS at https://{HOST} cannot be reached" in told
    assert f"{HOST} through the proxy {proxy.address} (HTTPS_PROXY): " in told
    assert "no more exports" not in told
    assert QUOTED not in told


async def test_page_in_place_of_a_tunnel_is_told_without_the_words_of_openssl(
    cloud: Simulator, tmp_path: Path
) -> None:
    """The sentence names the proxy and its variable, and says what to do."""
    page = http("<html>log in", headers={"Content-Type": "text/html"})
    async with (
        over_tls(cloud, tmp_path) as (plain, port),
        http_proxy(port, answer=page) as proxy,
    ):
        shell = with_variables(plain, HTTPS_PROXY=f"http://{proxy.address}")
        where = ("--region", REGION, "--bucket", BUCKET)
        await shell.run("enqueue", "--image", "img-00000001", *where)
        async with shell.start("run") as process:
            told = await wait_for_output(process, "log in with a browser")
    assert f"{HOST} through the proxy {proxy.address} (HTTPS_PROXY): the proxy answers " in told
    assert "with a page instead of a connection" in told
    assert "SSL" not in told


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HTTPS_PROXY", "gopher://user:{}@proxy:1"),
        ("https_proxy", "user:{}@proxy:port"),
        ("ALL_PROXY", "socks4://user:{}@proxy:1"),
    ],
)
async def test_unusable_proxy_is_a_usage_error(tmp_path: Path, name: str, value: str) -> None:
    """One sentence names the variable of an unusable proxy, but not its value.

    Commands that send nothing ignore the variable.
    """
    database = {"ORCHESTRATOR_DATABASE_URL": str(tmp_path / "exports.db")}
    keys = {"TENCENTCLOUD_SECRET_ID": "AKIDx", "TENCENTCLOUD_SECRET_KEY": "x"}
    shell = Shell(tmp_path, {**database, **keys, name: value.format(QUOTED)})
    ended = await enqueue_and_run(shell)
    assert (ended.code, ended.out) == (2, "")
    assert f"{name} does not name a proxy that can be used: " in ended.err
    assert_secret_is_nowhere(tmp_path, ended)


async def test_rubbish_concerns_no_endpoint_on_loopback(cloud: Simulator, tmp_path: Path) -> None:
    """A run against `simulate` ignores invalid proxy and certificate variables.

    Commands that send nothing ignore them too.
    """
    shell = with_variables(Shell.for_cloud(cloud, tmp_path), **RUBBISH)
    ended = await enqueue_and_run(shell)
    assert ended.code == 0, ended.err
    assert "PROXY" not in ended.err.upper()
    for words in (["status"], ["history"], ["show", "1"], ["--help"], ["db", "upgrade"]):
        ended = await shell.run(*words)
        assert (ended.code, ended.err.count("Traceback")) == (0, 0), ended.err
    async with shell.start("simulate", "--port", "0") as process:
        assert process.stdout is not None
        assert b"127.0.0.1" in await process.stdout.receive()


@pytest.mark.parametrize("name", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
async def test_unusable_certificates_are_a_usage_error(
    cloud: Simulator, tmp_path: Path, name: str
) -> None:
    """The sentence names the variable and the file."""
    async with over_tls(cloud, tmp_path) as (shell, _):
        named = {"SSL_CERT_FILE": "", name: "/not/there.pem"}
        ended = await enqueue_and_run(with_variables(shell, **named))
    assert ended.code == 2
    assert f"{name} names /not/there.pem, which cannot be used: there is no such file." in ended.err


async def test_untrusted_certificate_shows_which_authorities_were_used(
    cloud: Simulator, tmp_path: Path
) -> None:
    """A remedy that is followed already helps nobody."""
    (tmp_path / "other").mkdir()
    _, other = self_signed(tmp_path / "other", name="other.example")
    async with (
        over_tls(cloud, tmp_path) as (shell, port),
        http_proxy(port) as proxy,
    ):
        url = f"http://{proxy.address}"
        ended = await enqueue_and_run(
            with_variables(shell, HTTPS_PROXY=url, SSL_CERT_FILE=str(other))
        )
    assert ended.code == 6, ended.err
    assert f"through the proxy {proxy.address} (HTTPS_PROXY): the certificate is not" in ended.err
    assert f"{other} (SSL_CERT_FILE)" in ended.err
    assert "set SSL_CERT_FILE to" not in ended.err
    assert "Client." not in ended.err + ended.out


def assert_secret_is_nowhere(folder: Path, *results: CommandResult) -> None:
    """Check that the proxy's password is in no output and in no file of the store."""
    texts = [part for one in results for part in (one.out, one.err)]
    with sqlite3.connect(folder / "exports.db") as connection:
        texts += connection.iterdump()
    connection.close()
    for text in texts:
        assert PASSWORD not in text
        assert QUOTED not in text
        assert "ss:w" not in text
