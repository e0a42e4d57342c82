"""`python -m experiments.tables --help`; see `jaxmeta/recipes/domains/tables.py`."""

import sys

from jaxmeta.commands import main

if __name__ == "__main__":
    sys.exit(main("tables", prog="python -m experiments.tables"))
