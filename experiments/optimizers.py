"""`python -m experiments.optimizers --help`; see `jaxmeta/recipes/domains/optimizers.py`."""

import sys

from jaxmeta.commands import main

if __name__ == "__main__":
    sys.exit(main("optimizers", prog="python -m experiments.optimizers"))
