"""`python -m runlake` is the command line."""

from runlake.cli import main

main()
