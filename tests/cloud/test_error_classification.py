"""Every answer, and every exception instead of one, has a row."""

import httpx
import pytest

from orchestrator.cloud.error_classification import CLIENT_CODES, code_for_exception, code_for_reply
from orchestrator.cloud.error_codes import CODES, code_for
from orchestrator.cloud.http_client import (
    ActionRequiredError,
    NotTlsError,
    ProxyRefusalError,
    UntrustedCertificateError,
)
from orchestrator.model import Effect, Reaction, Reply, Scope

EXPORTED = [getattr(httpx, name) for name in httpx.__all__]
RAISED = [kind for kind in EXPORTED if isinstance(kind, type) and issubclass(kind, Exception)]
WITH_A_ROW = {
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.DecodingError,
    httpx.InvalidURL,
    httpx.LocalProtocolError,
    httpx.ProxyError,
    httpx.ReadError,
    httpx.ReadTimeout,
    httpx.RemoteProtocolError,
    httpx.TransportError,
    httpx.UnsupportedProtocol,
    httpx.WriteError,
}
"""What the HTTP client raises; it follows no redirects, and waits for no pool."""
UNSENT = {
    httpx.ConnectError: Reaction.PAUSE,
    httpx.ConnectTimeout: Reaction.PAUSE,
    httpx.ProxyError: Reaction.PAUSE,
    httpx.InvalidURL: Reaction.FAIL,
    httpx.LocalProtocolError: Reaction.FAIL,
    httpx.UnsupportedProtocol: Reaction.FAIL,
}


def instance(kind: type[Exception]) -> Exception:
    """Return an exception without calling its constructor.

    The constructor may need more arguments.
    """
    return kind.__new__(kind, "m")


@pytest.mark.parametrize("kind", RAISED)
def test_row_of_an_exception_is_its_own_or_a_general_one(kind: type[Exception]) -> None:
    """An exception gets the row of its class, or a general row if there is none.

    The remedy is one sentence.
    """
    row = code_for_exception(instance(kind))
    if kind in WITH_A_ROW:
        expected = kind.__name__
    else:
        expected = "TransportError" if issubclass(kind, httpx.TransportError) else "Unexpected"
    assert row.name == f"Client.{expected}"
    assert row.remedy.endswith(".")
    assert ". " not in row.remedy


@pytest.mark.parametrize("kind", RAISED)
def test_only_unsent_requests_have_no_effect(kind: type[Exception]) -> None:
    """Only an error before sending proves that the request had no effect.

    After any other error, the request may have taken effect.
    """
    row = code_for_exception(instance(kind))
    expected = (UNSENT[kind], Effect.NO) if kind in UNSENT else (Reaction.RECONCILE, Effect.MAYBE)
    assert (row.reaction, row.effect) == expected


def test_no_two_exceptions_share_a_remedy() -> None:
    """Each exception and each code of the vendor has a remedy of its own."""
    remedies = [row.remedy for row in (*CLIENT_CODES.values(), *CODES.values())]
    assert len(set(remedies)) == len(remedies)


def test_an_answer_without_tls_is_waited_for_with_a_remedy_of_its_own() -> None:
    """The handshake fails before anything is sent, as with any other connection."""
    row = code_for_exception(NotTlsError("m"))
    assert (row.name, row.reaction, row.effect) == (
        "Client.NotTlsError",
        Reaction.PAUSE,
        Effect.NO,
    )
    assert "login page" in row.remedy


def test_subclass_gets_the_row_of_its_parent() -> None:
    """A subclass from another library is treated like its httpx parent class."""

    class Derived(httpx.ConnectTimeout):
        """An exception of another library."""

    assert code_for_exception(Derived("m")).name == "Client.ConnectTimeout"


@pytest.mark.parametrize(
    "error", [RuntimeError("m"), OSError(5, "m"), ExceptionGroup("m", [OSError()])]
)
def test_unexpected_exception_may_have_had_an_effect(error: Exception) -> None:
    """An unexpected exception may have occurred after the request was sent."""
    row = code_for_exception(error)
    assert (row.name, row.reaction) == ("Client.Unexpected", Reaction.RECONCILE)
    assert row.effect is Effect.MAYBE


@pytest.mark.parametrize("kind", [ProxyRefusalError, UntrustedCertificateError])
def test_what_needs_a_person_halts_the_endpoint(kind: type[ActionRequiredError]) -> None:
    """A proxy's refusal and an untrusted certificate halt the endpoint.

    Nothing was sent, and the exception has its own remedy.
    """
    row = code_for_exception(kind("m", "Do this.", httpx.Request("POST", "https://x.example")))
    assert (row.reaction, row.effect, row.scope) == (Reaction.HALT, Effect.NO, Scope.ENDPOINT)
    assert (row.name, row.remedy) == (kind.code, "Do this.")


@pytest.mark.parametrize(
    ("reply", "name", "reaction", "effect"),
    [
        (Reply(200, "r", 1, ("/a",)), "Client.Accepted", Reaction.ACCEPT, Effect.YES),
        (Reply(200, "r", 0, ("/a",)), "Client.Accepted", Reaction.ACCEPT, Effect.YES),
        (Reply(200, "r", 1), "Client.NoTaskId", Reaction.RECONCILE, Effect.MAYBE),
        (Reply(200, "r", None, ("/a",)), "Client.NoTaskId", Reaction.RECONCILE, Effect.MAYBE),
        (Reply(200, "r"), "Client.NoTaskId", Reaction.RECONCILE, Effect.MAYBE),
        (Reply(200, excerpt=""), "Client.NotAnApiAnswer", Reaction.RECONCILE, Effect.MAYBE),
        (Reply(502, excerpt="x"), "Client.HttpStatus", Reaction.RECONCILE, Effect.MAYBE),
        (Reply(429), "Client.HttpStatus", Reaction.RECONCILE, Effect.MAYBE),
    ],
)
def test_reply_without_a_code_is_classified_by_its_content(
    reply: Reply, name: str, reaction: Reaction, effect: Effect
) -> None:
    """Only TaskId and paths together prove that the request was accepted.

    Otherwise the request may have been accepted.
    """
    row = code_for_reply(reply)
    assert (row.name, row.reaction, row.effect) == (name, reaction, effect)
    assert row.remedy.endswith(".")


@pytest.mark.parametrize("status", [200, 400, 500])
def test_code_takes_precedence_over_the_status(status: int) -> None:
    """If the vendor gave a code, its row is the result."""
    reply = Reply(status, error_code="LimitExceeded.ExportImageTaskLimitExceeded")
    assert code_for_reply(reply) == code_for("LimitExceeded.ExportImageTaskLimitExceeded")
