"""`python -m experiments.control --help`; see `jaxmeta/recipes/domains/control.py`."""

import sys

from jaxmeta.commands import main

if __name__ == "__main__":
    sys.exit(main("control", prog="python -m experiments.control"))
