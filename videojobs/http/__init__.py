"""Hardened HTTP: judged addresses, one deadline, bounded bodies. Knows no provider and no job."""
