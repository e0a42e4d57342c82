"""`python -m experiments.sentiment --help`; see `jaxmeta/recipes/domains/sentiment.py`."""

import sys

from jaxmeta.commands import main

if __name__ == "__main__":
    sys.exit(main("sentiment", prog="python -m experiments.sentiment"))
