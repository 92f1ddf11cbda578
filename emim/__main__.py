"""``python -m emim`` is the command line."""

import sys

from emim.cli import main

if __name__ == "__main__":
    sys.exit(main())
