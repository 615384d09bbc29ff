"""`python -m jacobi_forcing` is the `jacobi` command."""

import sys

from jacobi_forcing.cli import main

sys.exit(main())
