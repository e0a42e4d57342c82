"""`python -m experiments.architectures --help`; see `jaxmeta/recipes/domains/architectures.py`."""

import sys

from jaxmeta.commands import main

if __name__ == "__main__":
    sys.exit(main("architectures", prog="python -m experiments.architectures"))
