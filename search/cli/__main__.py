"""`python -m search.cli` is `fmnist`."""

from search.cli import main

main()
