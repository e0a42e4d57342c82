"""Entry point of `python -m jaxmeta COMMAND` and of the program `jaxmeta`."""

import sys


def main() -> int:
    """Run the command line and return its exit status."""
    try:
        from jaxmeta.commands import main
    except ModuleNotFoundError as error:  # an extra is missing; the message names it
        print(f"error: {error}", file=sys.stderr)
        return 1
    return main(prog=None)


if __name__ == "__main__":
    sys.exit(main())
