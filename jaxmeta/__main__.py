"""`python -m jaxmeta COMMAND`."""

import sys

from jaxmeta.commands import main

if __name__ == "__main__":
    sys.exit(main(prog=None))
