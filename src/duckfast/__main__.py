"""`python -m duckfast`: the same as the command `duckfast`."""

from .cli import main

if __name__ == "__main__":
    main()
