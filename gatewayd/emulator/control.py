"""The hub's remote control: a small HTTP interface on loopback for a demo, a script or a person with curl.

    GET    /summary                     the hub's account
    GET    /events?since=&code=&identity=&limit=
    GET    /messages?since=&identity=&limit=      the newest telemetry: body in base64, "system" and "custom" properties
    GET    /message-ids                 {identity: [ids]}, or of one ?identity=
    GET    /arrivals?identity=&since=&limit=      all of one identity's telemetry in the order of its coming:
                                        [digest of the payload (BLAKE2b, 8 bytes, hex), bag, marked DUP]
    GET    /faults                      what is armed
    POST   /faults                      {"kind", "identity", "count", "seconds", "value"} -> {"number"}
    DELETE /faults[/{number}]
    POST   /restart {"seconds", "lose_sessions"}   /blackhole {"seconds"}   /drop {"identity"}
    PATCH  /settings                    {"skew_seconds", "grace_seconds", "clock_offset", "connects_per_second",
                                        "over_rate", "close_on_foreign_filter", "sends_per_second", "shape_seconds",
                                        "lock_seconds", "keep_packet_ids"}
    POST   /certificate                 a new root; answers its PEM
    GET    /certificate                 the PEM of the root
    PUT    /identities {"name", "primary_key", "secondary_key", "enabled"}   PATCH, DELETE by the same name

and what the service side of a hub may ask (`control_service`).

It has no authentication and shows what devices sent, so it refuses to listen anywhere but on loopback. A request that
cannot be used is answered 400 with the reason.
"""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import json
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any

from aiohttp import web

from gatewayd.emulator.certificate import make_certificate
from gatewayd.emulator.connect_throttle import OverRate
from gatewayd.emulator.control_service import ServiceRoutes
from gatewayd.emulator.faults import FaultKind
from gatewayd.emulator.hub import HubEmulator
from gatewayd.emulator.ledger import ReceivedMessage
from gatewayd.emulator.registry import RegisteredIdentity, decode_key
from gatewayd.emulator.service_side import NoSuchIdentity, NotOnline

MAX_REQUEST_BYTES = 1024 * 1024
DEFAULT_LIMIT = 1000

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Json = dict[str, Any]


class ControlServer:
    """Serves one hub until closed."""

    def __init__(self, hub: HubEmulator) -> None:
        self._hub = hub
        self._runner: web.AppRunner | None = None
        self.port = 0

    async def start(self, host: str, port: int) -> None:
        if not ipaddress.ip_address(host).is_loopback:
            raise ValueError(f"control on {host}: only loopback addresses, it has no authentication")
        application = web.Application(middlewares=[_answer_mistakes], client_max_size=MAX_REQUEST_BYTES)
        application.add_routes(_Routes(self._hub).table())
        self._runner = web.AppRunner(application, access_log=None, handle_signals=False)
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def close(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None


@web.middleware
async def _answer_mistakes(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except NotOnline as error:
        return web.json_response({"error": str(error), "code": 404103}, status=404)
    except NoSuchIdentity as error:
        return web.json_response({"error": str(error), "code": 404001}, status=404)
    except TimeoutError:
        return web.json_response({"error": "the device did not answer in time", "code": 504101}, status=504)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        return web.json_response({"error": f"{type(error).__name__}: {error}"}, status=400)


class _Routes:
    """One method a route."""

    def __init__(self, hub: HubEmulator) -> None:
        self._hub = hub

    def table(self) -> list[web.RouteDef]:
        return [
            web.get("/summary", self.summary),
            web.get("/events", self.events),
            web.get("/messages", self.messages),
            web.get("/message-ids", self.message_ids),
            web.get("/arrivals", self.arrivals),
            web.get("/faults", self.faults),
            web.post("/faults", self.arm),
            web.delete("/faults", self.clear_faults),
            web.delete("/faults/{number}", self.disarm),
            web.post("/restart", self.restart),
            web.post("/blackhole", self.blackhole),
            web.post("/drop", self.drop),
            web.patch("/settings", self.change_settings),
            web.get("/certificate", self.certificate),
            web.post("/certificate", self.rotate),
            web.put("/identities", self.put_identity),
            web.patch("/identities", self.enable_identity),
            web.delete("/identities", self.remove_identity),
            *ServiceRoutes(self._hub).table(),
        ]

    async def summary(self, _request: web.Request) -> web.Response:
        return web.json_response(self._hub.summary().as_dict())

    async def events(self, request: web.Request) -> web.Response:
        since = int(request.query.get("since", "0"))
        code = request.query.get("code")
        events = self._hub.events.matching(None if code is None else int(code), request.query.get("identity"))
        lines = [event.as_json() for event in events if event.sequence >= since]
        return _array(lines[: _limit(request)])

    async def messages(self, request: web.Request) -> web.Response:
        kept = self._hub.ledger.of(request.query.get("identity"), int(request.query.get("since", "0")))
        return _array([_message(message) for message in kept[: _limit(request)]])

    async def arrivals(self, request: web.Request) -> web.Response:
        arrivals = self._hub.ledger.arrivals(request.query["identity"])
        since = max(0, int(request.query.get("since", "0")))
        places = range(since, min(len(arrivals), since + _limit(request)))
        came = [arrivals[place] for place in places]
        return web.json_response([[arrival.digest.hex(), arrival.bag, arrival.dup] for arrival in came])

    async def message_ids(self, request: web.Request) -> web.StreamResponse:
        """Piece by piece: a fleet's ids are megabytes, and devices must not wait for them."""
        ledger = self._hub.ledger
        identity = request.query.get("identity")
        names = ledger.identities() if identity is None else [identity]
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        await response.write(b"{")
        for number, name in enumerate(names):
            comma = "," if number else ""
            ids = json.dumps(sorted(ledger.ids(name)))
            await response.write(f"{comma}{json.dumps(name)}:{ids}".encode())
            await asyncio.sleep(0)
        await response.write(b"}")
        return response

    async def faults(self, _request: web.Request) -> web.Response:
        state = self._hub.state
        return web.json_response([asdict(fault) for fault in state.faults.armed(state.now())])

    async def arm(self, request: web.Request) -> web.Response:
        wanted: Json = await request.json()
        number = self._hub.arm(
            FaultKind(wanted["kind"]),
            identity=wanted.get("identity"),
            count=wanted.get("count"),
            seconds=float(wanted.get("seconds", 3600.0)),
            value=float(wanted.get("value", 0.0)),
        )
        return web.json_response({"number": number})

    async def clear_faults(self, _request: web.Request) -> web.Response:
        self._hub.faults.clear()
        return web.json_response({})

    async def disarm(self, request: web.Request) -> web.Response:
        return web.json_response({"disarmed": self._hub.faults.disarm(int(request.match_info["number"]))})

    async def restart(self, request: web.Request) -> web.Response:
        wanted: Json = await request.json()
        closed = await self._hub.restart(
            float(wanted.get("seconds", 0.0)), lose_sessions=bool(wanted.get("lose_sessions", False))
        )
        return web.json_response({"closed": closed})

    async def blackhole(self, request: web.Request) -> web.Response:
        wanted: Json = await request.json()
        await self._hub.blackhole(float(wanted["seconds"]))
        return web.json_response({})

    async def drop(self, request: web.Request) -> web.Response:
        wanted: Json = await request.json()
        return web.json_response({"closed": self._hub.drop(wanted.get("identity"))})

    async def change_settings(self, request: web.Request) -> web.Response:
        wanted: Json = await request.json()
        hub = self._hub
        for name, value in wanted.items():
            match name:
                case "skew_seconds":
                    hub.settings.skew_seconds = float(value)
                case "grace_seconds":
                    hub.set_grace(float(value))
                case "clock_offset":
                    hub.set_clock_offset(float(value))
                case "close_on_foreign_filter":
                    hub.settings.close_on_foreign_filter = bool(value)
                case "connects_per_second":
                    hub.throttle.per_second = int(value)
                case "over_rate":
                    hub.throttle.mode = OverRate(value)
                case "sends_per_second":
                    hub.send_throttle.per_second = int(value)
                case "shape_seconds":
                    hub.send_throttle.shape_seconds = float(value)
                case "lock_seconds":
                    hub.settings.lock_seconds = float(value)
                case "keep_packet_ids":
                    hub.settings.keep_packet_ids = bool(value)
                case _:
                    raise ValueError(f"no setting {name!r}")
        return web.json_response({})

    async def certificate(self, _request: web.Request) -> web.Response:
        return web.Response(body=self._hub.certificate.authority_pem, content_type="application/x-pem-file")

    async def rotate(self, request: web.Request) -> web.Response:
        hub = self._hub
        await hub.rotate_certificate(
            make_certificate(hub.settings.hostname, [hub.address[0]], wall=hub.clock.wall())
        )
        return await self.certificate(request)

    async def put_identity(self, request: web.Request) -> web.Response:
        wanted: Json = await request.json()
        name = str(wanted["name"])
        primary = decode_key(wanted["primary_key"], name)
        secondary = decode_key(wanted.get("secondary_key") or wanted["primary_key"], name)
        self._hub.registry.put(
            RegisteredIdentity(name, primary, secondary, enabled=bool(wanted.get("enabled", True)))
        )
        return web.json_response({})

    async def enable_identity(self, request: web.Request) -> web.Response:
        wanted: Json = await request.json()
        changed = self._hub.registry.enable(wanted["name"], enabled=bool(wanted["enabled"]))
        return web.json_response({"changed": changed})

    async def remove_identity(self, request: web.Request) -> web.Response:
        wanted: Json = await request.json()
        return web.json_response({"removed": self._hub.registry.remove(wanted["name"])})


def _limit(request: web.Request) -> int:
    return max(0, int(request.query.get("limit", str(DEFAULT_LIMIT))))


def _array(lines: list[str]) -> web.Response:
    return web.Response(text=f"[{','.join(lines)}]", content_type="application/json")


def _message(message: ReceivedMessage) -> str:
    return json.dumps(
        {
            **asdict(message),
            **asdict(message.properties),
            "payload": base64.b64encode(message.payload).decode(),
        }
    )
