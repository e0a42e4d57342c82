"""`python -m experiments.sequence --help`; see `jaxmeta/recipes/domains/sequence.py`."""

import sys

from jaxmeta.commands import main

if __name__ == "__main__":
    sys.exit(main("sequence", prog="python -m experiments.sequence"))
