"""`python -m experiments.streams --help`; see `jaxmeta/recipes/domains/streams.py`."""

import sys

from jaxmeta.commands import main

if __name__ == "__main__":
    sys.exit(main("streams", prog="python -m experiments.streams"))
