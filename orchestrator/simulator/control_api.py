"""The control API below ``/_simulator/``: ledger, exports, state and settings."""

import json
import math
from dataclasses import asdict
from typing import Any

from orchestrator.simulator.cloud import Cloud
from orchestrator.simulator.http_connection import Request, Response
from orchestrator.simulator.ledger import line
from orchestrator.simulator.scenario import ScenarioError, read_changes

ROOT = "/_simulator/"


def answer(cloud: Cloud, request: Request) -> Response:
    """Answer one request to the control API; it is not recorded in the ledger."""
    match request.method, request.path.removeprefix(ROOT):
        case "GET", "ledger":
            lines = "".join(map(line, cloud.ledger.entries))
            return Response(200, lines.encode(), (("Content-Type", "application/x-ndjson"),))
        case "GET", "exports":
            return _json(exports(cloud))
        case "GET", "state":
            return _json(state(cloud))
        case "GET", "settings":
            return _json(asdict(cloud.settings))
        case "POST", "settings":
            return _change(cloud, request)
    return _json({"error": f"There is nothing for {request.method} at {request.path}."}, 404)


def exports(cloud: Cloud) -> list[dict[str, Any]]:
    """Return all exports with their times and states."""
    now = cloud.now()
    return [
        {
            **asdict(export),
            "state": export.state(now),
            "ends_at": None if math.isinf(export.ends_at) else export.ends_at,
            "objects": [stored.key for stored in export.objects],
            "uploads": [upload.key for upload in export.uploads],
        }
        for export in cloud.exports.all
    ]


def state(cloud: Cloud) -> dict[str, Any]:
    """Return counts of requests, refusals, exports and objects."""
    cloud.exports.advance(cloud.now())
    return {
        "requests": len(cloud.ledger.entries),
        "refused": dict(cloud.ledger.codes),
        "exports": len(cloud.exports.all),
        "duplicates": sum(export.duplicate for export in cloud.exports.all),
        "running": {"/".join(scope): n for scope, n in cloud.exports.running().items()},
        "cap": cloud.settings.cap,
        "occupied": cloud.settings.occupied,
        "objects": cloud.buckets.count,
    }


def _change(cloud: Cloud, request: Request) -> Response:
    try:
        changes = read_changes(json.loads(request.body), cloud.settings)
    except ScenarioError as error:
        return _json({"error": str(error)}, 400)
    except ValueError:
        return _json({"error": "The body is not a JSON document."}, 400)
    cloud.change(**changes)
    return _json(asdict(cloud.settings))


def _json(value: object, status: int = 200) -> Response:
    body = json.dumps(value, ensure_ascii=False).encode()
    return Response(status, body, (("Content-Type", "application/json"),))
