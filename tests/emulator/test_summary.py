"""The account is of plain values, so that it can be sent as JSON."""

from __future__ import annotations

import json

from gatewayd.emulator.event_log import HubCode
from gatewayd.emulator.summary import summarize
from tests.support.emulated_hub import emulated_hub


async def test_the_account_is_json_with_codes_as_text() -> None:
    async with emulated_hub("dev-01") as desk:
        desk.hub.state.log(desk.hub.events.since()[0].operation, HubCode.THROTTLED, cause="why")
        desk.hub.state.sends.count(desk.hub.state.now())
        account = json.loads(json.dumps(summarize(desk.hub.state, desk.hub.state.now()).as_dict()))
        assert account["hub_errors"] == {"429001": 1}
        assert account["hub_error_causes"] == {"429001/why": 1}
        assert (account["sends"], account["sends_peak_per_s"], sum(account["sends_per_s"])) == (1, 1, 1)
        assert account["handover_gap_ms"]["count"] == 0
