"""Management commands and their shared code."""
