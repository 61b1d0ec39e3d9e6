"""`python -m tcpcopy` is the command `tcpcopy`."""

from __future__ import annotations

import sys

from tcpcopy.cli import main

if __name__ == "__main__":
    sys.exit(main())
