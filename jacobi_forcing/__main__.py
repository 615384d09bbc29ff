"""`python -m jacobi_forcing` is the `jacobi` command."""

import sys

from jacobi_forcing.cli import main

if __name__ == "__main__":  # not where a process of ours imports it again
    sys.exit(main())
