"""The parts of the poll benchmark: contestants, measurements and scenarios."""
