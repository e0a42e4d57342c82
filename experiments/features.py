"""`python -m experiments.features --help`; see `jaxmeta/recipes/domains/features.py`."""

import sys

from jaxmeta.commands import main

if __name__ == "__main__":
    sys.exit(main("features", prog="python -m experiments.features"))
