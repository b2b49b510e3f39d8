"""One script through every feature of a hub, with an unmodified azure-iot-device client: what came out, line by line.

Run as a program with one JSON argument, a `Script` as `tests.support.features` makes it: where the client connects, and
where the hub's remote control listens, which plays the cloud application. Prints the transcript, one line for each
thing that was observed at either end. Times are left out; every id in it was given by the script itself. So two runs
against two hubs that behave alike print the same, whatever stands between client and hub.

azure-iot-device sets no will, no retain and not every system property; paho-mqtt, on which it stands, does the rest.
"""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import queue
import ssl
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import azure.iot.device as azure_sdk
import paho.mqtt.client as paho

WITHIN_SECONDS = 15.0
# The SDK renews 120 s before the end (SasTokenStage in its pipeline_stages_base.py).
RENEWED_SOON_SECONDS = 125
Json = dict[str, Any]
sdk: Any = azure_sdk  # it has no types

ODD = "a/b+c=d&e%f #g?é\u20ac\U0001f600~'()*!"


def say(what: str, **more: object) -> None:
    """One line of the transcript."""
    sys.stdout.write(f"{what} {json.dumps(more, sort_keys=True)}\n")
    sys.stdout.flush()


class Cloud:
    """The cloud application, for one identity."""

    def __init__(self, control: str, identity: str) -> None:
        self._control = control
        self._identity = identity
        self._seen = 0

    def ask(self, method: str, path: str, /, **body: object) -> Json:
        """The answer; errors have a `code`."""
        request = urllib.request.Request(
            self._control + path, method=method, data=json.dumps(body).encode() if body else None
        )
        try:
            with urllib.request.urlopen(request, timeout=WITHIN_SECONDS) as response:
                answer: Json = json.load(response)
        except urllib.error.HTTPError as error:
            answer = json.load(error)
        return answer

    def telemetry(self, count: int = 1) -> None:
        """Tell of the next messages at the hub, in their order."""
        found: Any = []

        def came() -> bool:
            found[:] = self.ask("GET", f"/messages?identity={self._identity}&since={self._seen}")
            return len(found) >= count

        until(came, "telemetry at the hub")
        for message in found:
            self._seen = message["sequence"] + 1
            told = {name: message[name] for name in ("bag", "system", "custom", "qos")}
            body = shown(base64.b64decode(message["payload"]))
            say("hub has telemetry", identity=self._identity, body=body, **told)

    def total(self) -> None:
        """Tell how much telemetry there was in all: nothing may have come twice behind our back."""
        arrivals: Any = self.ask("GET", f"/arrivals?identity={self._identity}")
        say("hub had telemetry", identity=self._identity, total=len(arrivals))

    def send(self, **message: object) -> int:
        """Queue a message for the device; its number."""
        answer = self.ask("POST", "/cloud-messages", identity=self._identity, **message)
        return int(answer["number"])

    def completed(self, number: int) -> None:
        """Wait until the hub has let go of a message, and tell how."""
        where: Json = {}

        def is_over() -> bool:
            where.update(self.ask("GET", f"/cloud-messages?identity={self._identity}&number={number}"))
            return where["state"] not in {"enqueued", "invisible"}

        until(is_over, f"the end of cloud message {number}")
        say("hub's cloud message", number=number, **where)

    def call(self, method: str, payload: object, seconds: float = WITHIN_SECONDS) -> str:
        answer = self.ask(
            "POST", "/methods", identity=self._identity, method=method, payload=payload, seconds=seconds
        )
        return json.dumps(answer, sort_keys=True)

    def desire(self, patch: Json) -> None:
        self.ask("POST", "/desired", identity=self._identity, patch=patch)

    def twin(self) -> None:
        twin = self.ask("GET", f"/twin?identity={self._identity}")
        del twin["connected"]
        say("hub's twin", **twin)

    def fault(self, kind: str, **more: object) -> None:
        self.ask("POST", "/faults", kind=kind, identity=self._identity, **more)


def shown(body: bytes) -> str:
    """A body, or what tells it from others when it is long or no text."""
    if len(body) <= 100 and body.isascii():
        return body.decode()
    return f"{len(body)} bytes, {hashlib.sha256(body).hexdigest()}"


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for what nothing tells."""
    end = time.monotonic() + WITHIN_SECONDS
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"not within {WITHIN_SECONDS:g} s: {what}")
        time.sleep(0.01)


def attempt(what: str, do: Callable[[], object]) -> None:
    """What the SDK makes of it."""
    try:
        say(what, gave=do())
    except Exception as error:  # noqa: BLE001 - whatever it raises is what an application sees
        cause = error.__cause__
        say(what, raised=type(error).__name__, by=type(cause).__name__, saying=str(cause))


# Chapters, each with a client that is connected


def telemetry(client: Any, cloud: Cloud, *, output: bool = False) -> None:
    plain = sdk.Message("plain")
    full = sdk.Message(
        json.dumps({"t": 21.5}),
        message_id="id 1/&",
        content_encoding="utf-8",
        content_type="application/json",
    )
    full.correlation_id = "c=1"
    full.user_id = "user %"
    full.expiry_time_utc = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
    full.custom_properties = {
        "iothub-creation-time-utc": "2026-01-01T00:00:00Z",
        "empty": "",
        "plain": "value",
        ODD: ODD,
        "long": "x" * 500,
    }
    binary = sdk.Message(bytes(range(256)))
    binary.set_as_security_message()
    largest = sdk.Message("L" * 200_000)
    for message in (plain, full, binary, largest):
        client.send_message(message)
        cloud.telemetry()
    if output:
        full.message_id = "by output"
        client.send_message_to_output(full, "out 1")
        cloud.telemetry()
    for number in range(20):
        client.send_message(sdk.Message(str(number)))
    cloud.telemetry(20)


def cloud_messages(client: Any, cloud: Cloud, **where: str) -> None:
    got: queue.Queue[Any] = queue.Queue()
    client.on_message_received = got.put

    def tell(count: int) -> None:
        for _ in range(count):
            message = got.get(timeout=WITHIN_SECONDS)
            said = {
                name: getattr(message, name)
                for name in ("message_id", "correlation_id", "user_id", "content_type", "content_encoding")
            }
            say(
                "client has message",
                **said,
                ack=message.ack,
                expires=message.expiry_time_utc is not None,
                custom=message.custom_properties,
                body=message.data.decode(),
                input=message.input_name,
            )

    everything = {
        "message_id": "m 1",
        "correlation_id": "c/1",
        "user_id": "u&1",
        "content_type": "text/plain",
        "content_encoding": "utf-8",
        "ack": "full",
        "lifetime": 600,
    }
    custom = {ODD: ODD, "empty": "", "null": None}
    for message in (
        {"body": "bare"},
        {"body": "full", **everything, "custom": custom},
        {"body": "raw", "bag": "%24.mid=raw&a%2bb=1%2b2&x=%E2%82%AC"},
        {"body": "no bag", "bag": ""},
    ):
        number = cloud.send(**message, **where)
        tell(1)
        cloud.completed(number)
    numbers = [cloud.send(body=str(number), **where) for number in range(10)]
    tell(10)
    cloud.completed(numbers[-1])
    say("client has more messages", count=got.qsize())


def while_away(client: Any, cloud: Cloud) -> None:
    """After `cloud_messages`: what is sent to a device that is away waits, and comes in order when it is back."""
    got: queue.Queue[Any] = queue.Queue()
    client.on_message_received = got.put
    client.disconnect()
    until(lambda: cloud.call("echo", None, 0.1).find("404103") > 0, "the device is seen to be away")
    say("method for who is away", answer=cloud.call("echo", None))
    numbers = [cloud.send(body=f"waits {number}") for number in range(5)]
    client.connect()
    for _ in numbers:
        say("client has message", body=got.get(timeout=WITHIN_SECONDS).data.decode())
    for number in numbers:
        cloud.completed(number)
    say("client has more messages", count=got.qsize())


def methods(client: Any, cloud: Cloud) -> None:
    say("method before the handler", answer=cloud.call("echo", 1))
    late: list[Any] = []

    def handle(request: Any) -> None:
        match request.name:
            case "echo":
                payload, status = request.payload, 200
            case "fail":
                payload, status = {"why": ODD}, 500
            case "empty":
                payload, status = None, 204
            case _:
                late.append(request)
                return
        client.send_method_response(sdk.MethodResponse.create_from_method_request(request, status, payload))

    client.on_method_request_received = handle
    until(lambda: "404103" not in cloud.call("echo", None), "the handler is subscribed")
    for name, payload in (("echo", {"a": [1, ODD, None]}), ("echo", None), ("fail", ODD), ("empty", {})):
        say("method", name=name, answer=cloud.call(name, payload))
    with ThreadPoolExecutor(8) as several:
        answers = several.map(lambda number: cloud.call("echo", number), range(8))
        say("methods at once", answers=list(answers))
    say("method without an answer", answer=cloud.call("silent", 1, 0.5))
    for request in late:
        client.send_method_response(sdk.MethodResponse.create_from_method_request(request, 200, "too late"))
    say("method behind a late answer", answer=cloud.call("echo", "still well"))


def twins(client: Any, cloud: Cloud) -> None:
    changes: queue.Queue[Json] = queue.Queue()
    attempt("twin get", client.get_twin)
    patch = {"a": 1, "b": {"c": [1, 2.5, True, None], "d": "é"}, "gone": 1}
    attempt("twin patch", lambda: client.patch_twin_reported_properties(patch))
    attempt("twin patch", lambda: client.patch_twin_reported_properties({"gone": None}))
    cloud.twin()
    attempt("twin get", client.get_twin)
    client.on_twin_desired_properties_patch_received = changes.put
    for desired in ({"interval": 5, "x": {"y": "é"}}, {"interval": None}):
        cloud.desire(desired)
        say("client has desired", patch=changes.get(timeout=WITHIN_SECONDS))
    attempt("twin get", client.get_twin)
    attempt("twin patch not allowed", lambda: client.patch_twin_reported_properties({"a.b": 1}))
    for status in (429, 500, 503):
        cloud.fault("twin_status", value=status, count=1)
        attempt(f"twin get under {status}", client.get_twin)
        cloud.fault("twin_status", value=status, count=1)
        attempt(f"twin patch under {status}", lambda: client.patch_twin_reported_properties({"z": 1}))
    attempt("twin get after", client.get_twin)


# Clients


def azure(make: Any, script: Json, identity: str, **options: object) -> Any:
    device, _, module = identity.partition("/")
    parts = {
        "HostName": script["hostname"],
        "DeviceId": device,
        "ModuleId": module,
        "SharedAccessKey": script["keys"][identity],
        "GatewayHostName": script["gateway"],
    }
    text = ";".join(f"{name}={value}" for name, value in parts.items() if value)
    return make.create_from_connection_string(
        text, server_verification_cert=script["authority"], websockets=script["websockets"], **options
    )


def device_story(script: Json) -> None:
    identity = script["device"]
    client, cloud = azure(sdk.IoTHubDeviceClient, script, identity), Cloud(script["control"], identity)
    client.connect()
    telemetry(client, cloud)
    cloud_messages(client, cloud)
    methods(client, cloud)
    twins(client, cloud)
    while_away(client, cloud)
    client.shutdown()
    cloud.total()


def module_story(script: Json) -> None:
    identity = script["module"]
    client, cloud = azure(sdk.IoTHubModuleClient, script, identity), Cloud(script["control"], identity)
    client.connect()
    telemetry(client, cloud, output=True)
    cloud_messages(client, cloud, module_input="in 1")
    methods(client, cloud)
    twins(client, cloud)
    client.shutdown()
    cloud.total()


def renewal_story(script: Json) -> None:
    """After the SDK's own renewal, which is a reconnect and subscribes to nothing, everything still reaches it."""
    identity = script["device"]
    cloud = Cloud(script["control"], identity)
    client = azure(sdk.IoTHubDeviceClient, script, identity, sastoken_ttl=RENEWED_SOON_SECONDS)
    changed, got, changes = queue.Queue[None](), queue.Queue[Any](), queue.Queue[Json]()
    client.on_connection_state_change = lambda: changed.put(None)
    client.connect()
    client.on_message_received = got.put
    client.on_twin_desired_properties_patch_received = changes.put
    client.on_method_request_received = lambda request: client.send_method_response(
        sdk.MethodResponse.create_from_method_request(request, 200, request.payload)
    )
    until(lambda: "404103" not in cloud.call("echo", None), "the handler is subscribed")
    for _ in range(3):
        changed.get(timeout=WITHIN_SECONDS)  # connected, gone, connected
    say("renewed")
    number = cloud.send(body="after the renewal")
    say("client has message", body=got.get(timeout=WITHIN_SECONDS).data.decode())
    cloud.completed(number)
    say("method", answer=cloud.call("echo", "after the renewal"))
    cloud.desire({"after": "the renewal"})
    say("client has desired", patch=changes.get(timeout=WITHIN_SECONDS))
    attempt("twin get", client.get_twin)
    client.send_message("after the renewal")
    cloud.telemetry()
    client.shutdown()
    cloud.total()


class Plain:
    """A paho client as a device that has a will."""

    def __init__(self, script: Json) -> None:
        self._identity = script["plain"]
        self.events = f"devices/{self._identity}/messages/events/"
        self._connected: queue.Queue[int] = queue.Queue()
        transport = "websockets" if script["websockets"] else "tcp"
        self._client = paho.Client(self._identity, clean_session=False, transport=transport)
        if script["websockets"]:
            self._client.ws_set_options(path="/$iothub/websocket")
        self._client.username_pw_set(
            f"{script['hostname']}/{self._identity}/?api-version=2021-04-12", script["token"]
        )
        self._client.tls_set_context(ssl.create_default_context(cadata=script["authority"]))
        self._client.will_set(f"{self.events}{ODD_BAG}", b"\x00gone", qos=1)
        self._client.on_connect = lambda _client, _data, _flags, code: self._connected.put(code)
        self._address = script["gateway"] or script["hostname"], 443 if script["websockets"] else 8883

    def connect(self) -> None:
        self._client.connect(*self._address)
        self._client.loop_start()
        say("plain client is answered", code=self._connected.get(timeout=WITHIN_SECONDS))

    def publish(self, bag: str, qos: int, *, retain: bool = False) -> None:
        info = self._client.publish(self.events + bag, b"from paho", qos=qos, retain=retain)
        info.wait_for_publish(WITHIN_SECONDS)

    def leave(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def vanish(self) -> None:
        """Close the socket without a word."""
        self._client.loop_stop()
        self._client.socket().close()


# `null` bare and empty, doubles, a raw `$`, lower-case and needless escapes: nothing of it may change on the way.
ODD_BAG = "%24.ctime=2026-01-01T00%3a00%3a00Z&$.to=%2Fx&%24.diagid=abc&null&empty=&twice=1&twice=2&%61=%7E&plus=1%2B1"


def plain_story(script: Json) -> None:
    cloud = Cloud(script["control"], script["plain"])
    client = Plain(script)
    client.connect()
    client.publish("", 1)
    cloud.telemetry()
    client.publish(ODD_BAG, 1)
    cloud.telemetry()
    client.publish(ODD_BAG, 0)
    cloud.telemetry()
    client.publish("a=b", 1, retain=True)
    cloud.telemetry()
    client.vanish()
    cloud.telemetry()
    client = Plain(script)
    client.connect()
    client.leave()
    client = Plain(script)
    client.connect()
    client.publish("after=planned", 1)
    cloud.telemetry()
    client.leave()
    cloud.total()


STORIES = {"device": device_story, "module": module_story, "renewal": renewal_story, "plain": plain_story}


def main() -> None:
    logging.disable(logging.CRITICAL)
    script: Json = json.loads(sys.argv[1])
    for name in script["stories"]:
        say("story", name=name)
        STORIES[name](script)
    say("end")


if __name__ == "__main__":
    main()
