"""``python -m atelier`` is the command line ``atelier``."""

from __future__ import annotations

import sys

from atelier.cli import main

if __name__ == "__main__":
    sys.exit(main())
