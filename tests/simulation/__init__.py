"""A simulation of videojobs: its real code, on a real database, in an order drawn from a seed.

`./dev simulate` runs it. See `docs/reliability.md`.
"""
