"""``python -m emim`` is the command line."""

import json
import os
import sys

from emim.cli import main
from emim.events import ARGUMENTS

if __name__ == "__main__":
    given = os.environ.pop(ARGUMENTS, None)  # not for processes that this one starts
    if given is not None:
        sys.argv[1:] = json.loads(given)
    sys.exit(main())
