"""`python -m experiments.pretrain --help`; see `jaxmeta/recipes/domains/pretrain.py`."""

import sys

from jaxmeta.commands import main

if __name__ == "__main__":
    sys.exit(main("pretrain", prog="python -m experiments.pretrain"))
