"""`python -m experiments.transfer --help`; see `jaxmeta/commands/transfer.py`."""

import sys

from jaxmeta.commands import main

if __name__ == "__main__":
    sys.exit(main("transfer", prog="python -m experiments.transfer"))
