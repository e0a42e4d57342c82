"""`python -m jaxmeta COMMAND`, and the program `jaxmeta`."""

import sys


def main() -> int:
    """Run the command line; the exit status."""
    try:
        from jaxmeta.commands import main
    except ModuleNotFoundError as error:  # an extra, which the message names
        print(f"error: {error}", file=sys.stderr)
        return 1
    return main(prog=None)


if __name__ == "__main__":
    sys.exit(main())
