"""`python -m experiments.dynamics --help`; see `jaxmeta/recipes/domains/dynamics.py`."""

import sys

from jaxmeta.commands import main

if __name__ == "__main__":
    sys.exit(main("dynamics", prog="python -m experiments.dynamics"))
