"""The service side of the hub over HTTP, as part of its remote control.

    POST   /cloud-messages {"identity", "body" or "body_base64", "bag" or any of "message_id", "correlation_id",
                            "user_id", "content_type", "content_encoding", "ack", "lifetime" (seconds), "custom" {};
                            "module_input" for a module}    -> {"queued", "number"}
    GET    /cloud-messages?identity=             -> {"queued"}: how many its queue holds
    GET    /cloud-messages?identity=&number=     -> {"state", "deliveries"}
    DELETE /cloud-messages {"identity"}          -> {"purged"}
    POST   /desired {"identity", "patch"}        -> {"told"}
    GET    /twin?identity=                       -> both sections with their versions, and whether it is connected
    GET    /session?identity=                    -> {"connected", "subscriptions" {filter: QoS}}: no service shows it;
                                                 it says whether a device already listens
    POST   /methods {"identity", "method", "payload", "seconds", "connect_seconds"}     -> {"status", "body"}

A method for a device that is not online is answered 404 with code 404103, one without an answer 504 with code 504101,
an identity that is not registered 404 with code 404001.
"""

from __future__ import annotations

import base64
import json
from dataclasses import asdict
from typing import Any

from aiohttp import web

from gatewayd.emulator.property_bag import CloudProperties
from gatewayd.emulator.service_side import ServiceSide

PROPERTIES = frozenset(CloudProperties.__dataclass_fields__)
MESSAGE = PROPERTIES | {"identity", "body", "body_base64", "bag", "module_input"}

Json = dict[str, Any]


class ServiceRoutes:
    """One method a route."""

    def __init__(self, hub: ServiceSide) -> None:
        self._hub = hub

    def table(self) -> list[web.RouteDef]:
        return [
            web.post("/cloud-messages", self.send),
            web.get("/cloud-messages", self.where),
            web.delete("/cloud-messages", self.purge),
            web.post("/desired", self.desire),
            web.get("/twin", self.twin),
            web.get("/session", self.session),
            web.post("/methods", self.call_method),
        ]

    async def send(self, request: web.Request) -> web.Response:
        wanted: Json = await request.json()
        if unknown := wanted.keys() - MESSAGE:
            raise ValueError(f"no part of a message: {sorted(unknown)}")
        said = {name: value for name, value in wanted.items() if name in PROPERTIES}
        encoded = wanted.get("body_base64")
        body = (
            str(wanted.get("body", "")).encode()
            if encoded is None
            else base64.b64decode(encoded, validate=True)
        )
        number = self._hub.send_to_device(
            wanted["identity"],
            body,
            wanted.get("bag"),
            properties=CloudProperties(**said) if said else None,
            module_input=str(wanted.get("module_input", "")),
        )
        return web.json_response({"queued": number > 0, "number": number})

    async def where(self, request: web.Request) -> web.Response:
        identity, number = request.query["identity"], request.query.get("number")
        if number is None:
            return web.json_response({"queued": self._hub.queued(identity)})
        delivery = self._hub.delivery(identity, int(number))
        if delivery is None:
            raise ValueError(f"no message {number} is known")
        return web.json_response(asdict(delivery))

    async def purge(self, request: web.Request) -> web.Response:
        wanted: Json = await request.json()
        return web.json_response({"purged": self._hub.purge(wanted["identity"])})

    async def desire(self, request: web.Request) -> web.Response:
        wanted: Json = await request.json()
        return web.json_response({"told": self._hub.desire(wanted["identity"], wanted["patch"])})

    async def twin(self, request: web.Request) -> web.Response:
        return web.json_response(asdict(self._hub.read_twin(request.query["identity"])))

    async def session(self, request: web.Request) -> web.Response:
        return web.json_response(asdict(self._hub.session_of(request.query["identity"])))

    async def call_method(self, request: web.Request) -> web.Response:
        wanted: Json = await request.json()
        status, body = await self._hub.call_method(
            wanted["identity"],
            wanted["method"],
            json.dumps(wanted.get("payload")).encode(),
            within=float(wanted.get("seconds", 30.0)),
            connect_within=float(wanted.get("connect_seconds", 0.0)),
        )
        return web.json_response({"status": status, "body": body.decode(errors="replace")})
