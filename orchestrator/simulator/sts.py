"""STS and the metadata service: temporary keys of an assumed role or of the instance's role."""

import json
import re
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from typing import Any

from orchestrator.simulator import parameters, tc3_signature_check
from orchestrator.simulator.cloud import Call, Cloud
from orchestrator.simulator.error_messages import ApiError
from orchestrator.simulator.http_connection import Request, Response
from orchestrator.simulator.ledger import Entry
from orchestrator.simulator.settings import Key

METADATA = "/latest/meta-data/"
_INSTANCE_ROLE = f"{METADATA}cam/security-credentials/"
_VERSION = "2018-08-13"
_ARN = re.compile(
    r"qcs::cam::uin/\d+:"
    r"role(/(tencentcloudServiceRole/)?\d+|(/tencentcloudServiceRole)?Name/[\w+=,.@-]+)"
)
"""By number or by name (source: the vendor's page of AssumeRole)."""
_SESSION_NAME = re.compile(r"[\w+=,.@-]{2,128}")
_MAX_SECONDS = 43_200
_ROLE_SESSION = "4611686018427397919", "simulator"
"""Role id and session name of every temporary key, because a `Key` has neither."""
_PARAMETERS: Mapping[str, parameters.Check] = {
    "RoleArn": parameters.is_text,
    "RoleSessionName": parameters.is_text,
    "DurationSeconds": parameters.is_number,
    "Policy": parameters.is_text,
    "ExternalId": parameters.is_text,
}
"""Some parameters of AssumeRole (source: the vendor's own client)."""


def accepts(request: Request) -> bool:
    """Return whether a request is for STS or for the metadata service."""
    return (
        request.headers.get("x-tc-action") in _ACTIONS
        or request.headers.get("x-tc-version") == _VERSION
        or request.path.startswith(METADATA)
    )


def identify(request: Request, connection: int) -> Call:
    """Read the action and its parameters from a request, without checking them."""
    if request.path.startswith(METADATA):
        return Call(request, Entry("metadata", "GetRoleCredentials", connection), {})
    entry = Entry("sts", request.headers.get("x-tc-action", ""), connection)
    try:
        return Call(request, entry, parameters.read(request))
    except ApiError as error:
        return Call(request, entry, {}, error)


def answer(cloud: Cloud, call: Call) -> Response:
    """Answer one request."""
    if call.entry.service == "metadata":
        return _metadata(cloud, call)
    call.entry.request_id = cloud.request_id()
    try:
        result = _perform(cloud, call)
    except ApiError as error:
        call.entry.code = error.code
        result = {"Error": {"Code": error.code, "Message": error.message}}
    return _json({"Response": {**result, "RequestId": call.entry.request_id}})


def _perform(cloud: Cloud, call: Call) -> Mapping[str, Any]:
    key = tc3_signature_check.verify(call.request, cloud.keys, cloud.now(), service="sts")
    call.entry.account = key.account
    if call.entry.action not in _ACTIONS:
        raise ApiError("InvalidAction")
    if call.request.headers.get("x-tc-version") != _VERSION:
        raise ApiError("NoSuchVersion")
    if call.read_error is not None:
        raise call.read_error
    known, perform = _ACTIONS[call.entry.action]
    parameters.check(call.parameters, known)
    if (refusal := cloud.refusal(call.entry)) is not None:
        raise ApiError(refusal.code)
    return perform(cloud, call, key)


def _assume_role(cloud: Cloud, call: Call, key: Key) -> Mapping[str, Any]:
    seconds = _checked(call.parameters, cloud.settings.absent_roles)
    issued = cloud.issue_temporary_key(key.account, seconds)
    return {
        "Credentials": {
            "Token": issued.token,
            "TmpSecretId": issued.secret_id,
            "TmpSecretKey": issued.secret_key,
        },
        **_expiry(issued),
    }


def _get_caller_identity(_cloud: Cloud, _call: Call, key: Key) -> Mapping[str, Any]:
    """Return the identity of the key (source: the examples of the action in tccli)."""
    if key.token is None:
        kind, user = "CAMUser", key.account
        arn = f"qcs::cam:{key.account}:uin/{key.account}"
    else:
        role, session = _ROLE_SESSION
        kind, user = "CAMRole", f"{role}:{session}"
        arn = f"qcs::sts:{key.account}:assumed-role/{role}"
    return {
        "Type": kind,
        "AccountId": key.account,
        "UserId": user,
        "PrincipalId": key.account,
        "Arn": arn,
    }


_Action = Callable[[Cloud, Call, Key], Mapping[str, Any]]
_ACTIONS: Mapping[str, tuple[Mapping[str, parameters.Check], _Action]] = {
    "AssumeRole": (_PARAMETERS, _assume_role),
    "GetCallerIdentity": ({}, _get_caller_identity),
}
"""The parameters of each action, and the function that performs it."""


def _checked(given: parameters.Parameters, absent: Collection[str]) -> float:
    """Check the parameters of AssumeRole; return the requested validity in seconds."""
    for name in ("RoleArn", "RoleSessionName"):
        if name not in given:
            raise ApiError("MissingParameter", f"The request lacks the parameter `{name}`.")
    if not _ARN.fullmatch(given["RoleArn"]):
        raise ApiError("InvalidParameter.ParamError", "The RoleArn is malformed.")
    if given["RoleArn"].rpartition("/")[2] in absent:
        raise ApiError("ResourceNotFound.RoleNotFound", "The role does not exist.")
    if not _SESSION_NAME.fullmatch(given["RoleSessionName"]):
        raise ApiError("InvalidParameter.ParamError", "The RoleSessionName is malformed.")
    seconds: int = given.get("DurationSeconds", 7200)
    if seconds > _MAX_SECONDS:
        raise ApiError("InvalidParameter.OverTimeError", "DurationSeconds is over 43200.")
    return seconds


def _metadata(cloud: Cloud, call: Call) -> Response:
    """Return the name of the instance's role, or a key of it; 404 if it has none."""
    role = cloud.settings.instance_role
    name = call.request.path.removeprefix(_INSTANCE_ROLE)
    if not role or name not in {"", role}:
        return Response(404, b"Not Found", (("Content-Type", "text/html"),))
    if not name:
        return Response(200, role.encode(), (("Content-Type", "text/plain"),))
    issued = cloud.issue_temporary_key("100000000001", 7200)
    call.entry.account = issued.account
    return _json(
        {
            "TmpSecretId": issued.secret_id,
            "TmpSecretKey": issued.secret_key,
            "Token": issued.token,
            "Code": "Success",
            **_expiry(issued),
        }
    )


def _expiry(key: Key) -> Mapping[str, Any]:
    until = int(key.expires_at or 0)
    moment = datetime.fromtimestamp(until, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"ExpiredTime": until, "Expiration": moment}


def _json(value: object) -> Response:
    return Response(200, json.dumps(value).encode(), (("Content-Type", "application/json"),))
