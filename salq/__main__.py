"""`python -m salq ...`: the command line."""

import sys

from salq.cli import main

if __name__ == "__main__":
    sys.exit(main())
