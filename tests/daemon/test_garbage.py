"""How often garbage is searched for, asked in a process of its own: what is frozen stays so."""

from __future__ import annotations

import json
import subprocess
import sys

ASK = """
import gc, json, weakref
from gatewayd.daemon.garbage import YOUNG, search_seldom

class Node:
    pass

def leave_a_cycle():
    node = Node()
    node.itself = node
    return weakref.ref(node)

search_seldom()
frozen = gc.get_freeze_count()
before = [stats["collections"] for stats in gc.get_stats()]
under_way = [[] for _ in range(YOUNG // 2)]
after_some = [stats["collections"] for stats in gc.get_stats()]
refs = [leave_a_cycle() for _ in range(4 * YOUNG)]
print(json.dumps([frozen, before == after_some, sum(ref() is not None for ref in refs), YOUNG]))
"""


def test_messages_under_way_start_no_search_and_what_connections_leave_behind_still_goes() -> None:
    ran = subprocess.run([sys.executable, "-c", ASK], capture_output=True, text=True, timeout=30)
    assert ran.returncode == 0, ran.stderr
    frozen, unsearched, left, young = json.loads(ran.stdout)
    assert frozen > 1000
    assert unsearched
    assert left <= young
