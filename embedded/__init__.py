"""PostgreSQL, Redis and ClickHouse from PyPI wheels: for demos, tests and benchmarks, without Docker or root.

`python -m embedded up|down|status|run` drives the three engines; `embedded.stack` is the same from Python. Nothing here
imports the product, and the product does not import it: the two meet in the URLs that `.local/env` holds.
"""
