"""`python -m experiments.regression --help`; see `jaxmeta/recipes/domains/regression.py`."""

import sys

from jaxmeta.commands import main

if __name__ == "__main__":
    sys.exit(main("regression", prog="python -m experiments.regression"))
