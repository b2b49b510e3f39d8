"""`python -m gatewayd` and the `gatewayd` program."""

from __future__ import annotations

import sys

from gatewayd.cli import main

if __name__ == "__main__":
    sys.exit(main())
