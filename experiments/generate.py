"""`python -m experiments.generate --help`; see `jaxmeta/recipes/domains/generate.py`."""

import sys

from jaxmeta.commands import main

if __name__ == "__main__":
    sys.exit(main("generate", prog="python -m experiments.generate"))
