"""`python -m experiments.entities --help`; see `jaxmeta/recipes/domains/entities.py`."""

import sys

from jaxmeta.commands import main

if __name__ == "__main__":
    sys.exit(main("entities", prog="python -m experiments.entities"))
