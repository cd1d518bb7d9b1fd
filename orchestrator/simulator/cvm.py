"""The CVM service: it checks signature, version, rate and parameters, then performs the action.

The order of these checks decides which error a request with several faults gets.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.simulator import describe_images, export_images, parameters, tc3_signature_check
from orchestrator.simulator.cloud import Call, Cloud
from orchestrator.simulator.error_messages import ApiError
from orchestrator.simulator.http_connection import MAX_BODY_BYTES, Request, Response
from orchestrator.simulator.ledger import Entry
from orchestrator.simulator.regions import FINANCE_REGIONS, REGIONS

_VERSION = "2017-03-12"


@dataclass(frozen=True, slots=True)
class _Action:
    known: Mapping[str, parameters.Check]
    perform: Callable[[Cloud, Call], Mapping[str, Any]]
    regional: bool = True


_ACTIONS = {
    "ExportImages": _Action(export_images.PARAMETERS, export_images.export_images),
    "DescribeImages": _Action(describe_images.PARAMETERS, describe_images.describe_images),
    "DescribeRegions": _Action({}, describe_images.describe_regions, regional=False),
}


def identify(request: Request, connection: int) -> Call:
    """Read the action and its parameters from a request, without checking them."""
    read_error = None
    try:
        given = parameters.read(request)
    except ApiError as error:
        given, read_error = {}, error
    bucket = given.get("BucketName")
    entry = Entry(
        service="cvm",
        action=request.headers.get("x-tc-action", ""),
        connection=connection,
        region=request.headers.get("x-tc-region"),
        image_ids=parameters.texts(given, "ImageIds"),
        prefixes=parameters.texts(given, "FileNamePrefixList"),
        bucket=bucket if parameters.is_text(bucket) else None,
        dry_run=given.get("DryRun") is True,
    )
    return Call(request, entry, given, read_error)


def answer(cloud: Cloud, call: Call) -> Response:
    """Answer one request; errors have HTTP status 200 too, as the vendor's have."""
    entry = call.entry
    entry.request_id = cloud.request_id()
    try:
        result = _perform(cloud, call)
    except ApiError as error:
        entry.code = error.code
        result = {"Error": {"Code": error.code, "Message": error.message}}
    body = json.dumps({"Response": {**result, "RequestId": entry.request_id}})
    return Response(200, body.encode(), (("Content-Type", "application/json"),))


def _perform(cloud: Cloud, call: Call) -> Mapping[str, Any]:
    if len(call.request.body) > MAX_BODY_BYTES:
        raise ApiError("RequestSizeLimitExceeded")
    call.entry.account = tc3_signature_check.verify(call.request, cloud.keys, cloud.now()).account
    action = _action(call)
    _count(cloud, call.entry)
    if call.read_error is not None:
        raise call.read_error
    parameters.check(call.parameters, action.known)
    refusal = cloud.refusal(call.entry)
    if refusal is None:
        return action.perform(cloud, call)
    if refusal.after:
        action.perform(cloud, call)
    raise ApiError(refusal.code)


def _action(call: Call) -> _Action:
    """Return the action that the headers name."""
    headers, entry = call.request.headers, call.entry
    for name in ("Action", "Version"):
        if f"x-tc-{name.lower()}" not in headers:
            raise ApiError("MissingParameter", f"The request lacks the parameter `{name}`.")
    if headers["x-tc-version"] != _VERSION:
        raise ApiError("NoSuchVersion")
    if entry.action not in _ACTIONS:
        raise ApiError("InvalidAction", f"The action `{entry.action}` is not valid.")
    action = _ACTIONS[entry.action]
    if action.regional and not entry.region:
        raise ApiError("MissingParameter", "The request lacks the parameter `Region`.")
    if action.regional and entry.region not in {*REGIONS, *FINANCE_REGIONS}:
        raise ApiError("UnsupportedRegion", f"The region `{entry.region}` is not supported.")
    return action


def _count(cloud: Cloud, entry: Entry) -> None:
    """Count a request against the rate limit of its account."""
    limit = cloud.settings.limits.get(entry.action, 0)
    count = cloud.limits.count(entry.account or "", entry.action, entry.arrived)
    if limit and count > limit:
        raise ApiError(
            "RequestLimitExceeded",
            f"The request times equals to `{count}` in a second, over the limit `{limit}`.",
        )
