"""`python -m experiments.active --help`; see `jaxmeta/commands/active.py`."""

import sys

from jaxmeta.commands import main

if __name__ == "__main__":
    sys.exit(main("active", prog="python -m experiments.active"))
