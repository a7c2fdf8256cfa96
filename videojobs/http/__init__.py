"""Hardened HTTP: checked addresses, one deadline, bounded bodies. Independent of jobs."""
