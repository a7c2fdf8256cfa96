"""The contestants other than videojobs: job queues and a loop that poll rows of a small table."""
