"""`python -m experiments.baselines --help`; see `jaxmeta/commands/baselines.py`."""

import sys

from jaxmeta.commands import main

if __name__ == "__main__":
    sys.exit(main("baselines", prog="python -m experiments.baselines"))
