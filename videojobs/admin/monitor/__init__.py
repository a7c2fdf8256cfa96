"""The live monitor: its page and its data."""
