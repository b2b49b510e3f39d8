"""The program inside an `AzureDevice`: azure-iot-device as an application would use it, told what to do on stdin.

Run as a script with one JSON argument: {"key" or "sastoken", "hostname", "device_id", "authority", "options": {...}}.
Reads one JSON command a line and prints one JSON event a line; nothing of the SDK is changed.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from typing import Any

from azure.iot.device import IoTHubDeviceClient, Message, MethodResponse


def say(event: str, **more: object) -> None:
    # One write per line: the SDK calls back from threads of its own.
    os.write(1, json.dumps({"event": event, **more}).encode() + b"\n")


def make_client(spec: dict[str, Any]) -> Any:
    options = {"server_verification_cert": spec["authority"], **spec.get("options", {})}
    if "sastoken" in spec:
        return IoTHubDeviceClient.create_from_sastoken(spec["sastoken"], **options)
    return IoTHubDeviceClient.create_from_symmetric_key(
        symmetric_key=spec["key"], hostname=spec["hostname"], device_id=spec["device_id"], **options
    )


def obey(client: Any, command: dict[str, Any]) -> None:
    match command["do"]:
        case "connect":
            client.connect()
        case "send":
            message: Any = Message(command["body"])  # type: ignore[no-untyped-call]  # the SDK has no types
            message.message_id = command["mid"]
            client.send_message(message)
        case "update_sastoken":
            client.update_sastoken(command["sastoken"])
        case "twin":
            say("twin", twin=client.get_twin())
        case "report":
            client.patch_twin_reported_properties(command["patch"])
        case "listen_for_methods":
            client.on_method_request_received = lambda call: say(
                "method", name=call.name, payload=call.payload, rid=call.request_id
            )
        case "answer":
            reply: Any = MethodResponse(command["rid"], command["status"], command["payload"])
            client.send_method_response(reply)
        case "listen_for_desired":
            client.on_twin_desired_properties_patch_received = lambda patch: say("desired", patch=patch)


def main() -> None:
    logging.disable(logging.CRITICAL)
    client = make_client(json.loads(sys.argv[1]))
    client.on_connection_state_change = lambda: say("connected" if client.connected else "disconnected")
    client.on_new_sastoken_required = lambda: say("token_required")
    client.on_background_exception = lambda error: say("background", error=type(error).__name__)
    client.on_message_received = lambda message: say("message", body=message.data.decode())
    for line in sys.stdin:
        command = json.loads(line)
        if command["do"] == "stop":
            break
        try:
            obey(client, command)
            say("done", what=command["do"], mid=command.get("mid"))
        except Exception as error:  # noqa: BLE001 - whatever the SDK raises is told to the test
            say("failed", what=command["do"], error=type(error).__name__, mid=command.get("mid"))
    client.shutdown()
    say("stopped")


if __name__ == "__main__":
    main()
