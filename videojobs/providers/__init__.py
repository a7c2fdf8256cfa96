"""The paid API: its calls, and what may be asked of it."""
