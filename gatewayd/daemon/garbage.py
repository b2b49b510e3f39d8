"""How often Python looks for garbage that refers to itself.

What a message makes is freed when the last reference goes; only what ends with a connection can be a cycle. The
library's threshold counts objects in use: a few hundred messages under way are over it, again and again, and each full
search stops everything else for as long as it walks through all that lives. Without this the search took 3 % of what a
message costs, with 500 devices.
"""

from __future__ import annotations

import gc
from typing import Final

# Objects more than at the last search. A connection leaves some tens behind: garbage stays within a few megabytes.
YOUNG: Final = 10_000
# Searches of one generation before the next older one is searched too.
SEARCHES: Final = 20


def search_seldom() -> None:
    """From now on for the whole process. What exists already (modules, classes) is never searched again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, SEARCHES, SEARCHES)
