"""`python -m experiments.compress --help`; see `jaxmeta/commands/compress.py`."""

import sys

from jaxmeta.commands import main

if __name__ == "__main__":
    sys.exit(main("compress", prog="python -m experiments.compress"))
