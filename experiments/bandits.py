"""`python -m experiments.bandits --help`; see `jaxmeta/recipes/domains/bandits.py`."""

import sys

from jaxmeta.commands import main

if __name__ == "__main__":
    sys.exit(main("bandits", prog="python -m experiments.bandits"))
