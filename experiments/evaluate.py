"""`python -m experiments.evaluate --help`; see `jaxmeta/commands/evaluate.py`."""

import sys

from jaxmeta.commands import main

if __name__ == "__main__":
    sys.exit(main("evaluate", prog="python -m experiments.evaluate"))
