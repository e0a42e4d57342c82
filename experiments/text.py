"""`python -m experiments.text --help`; see `jaxmeta/recipes/domains/text.py`."""

import sys

from jaxmeta.commands import main

if __name__ == "__main__":
    sys.exit(main("text", prog="python -m experiments.text"))
