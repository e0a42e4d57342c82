"""`python -m experiments.package --help`; see `jaxmeta/commands/package.py`."""

import sys

from jaxmeta.commands import main

if __name__ == "__main__":
    sys.exit(main("package", prog="python -m experiments.package"))
