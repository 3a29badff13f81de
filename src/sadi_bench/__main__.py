"""`python -m sadi_bench` is `sadi-bench`."""

from sadi_bench.cli import main

main()
