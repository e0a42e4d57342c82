"""`python -m experiments.pools --help`; see `jaxmeta/recipes/domains/pools.py`."""

import sys

from jaxmeta.commands import main

if __name__ == "__main__":
    sys.exit(main("pools", prog="python -m experiments.pools"))
