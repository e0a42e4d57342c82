"""`python -m experiments.compare --help`; see `jaxmeta/commands/compare.py`."""

import sys

from jaxmeta.commands import main

if __name__ == "__main__":
    sys.exit(main("compare", prog="python -m experiments.compare"))
