"""`python -m experiments.curves --help`; see `jaxmeta/commands/curves.py`."""

import sys

from jaxmeta.commands import main

if __name__ == "__main__":
    sys.exit(main("curves", prog="python -m experiments.curves"))
