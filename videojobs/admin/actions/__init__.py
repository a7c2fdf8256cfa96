"""What an operator can start: the table of actions, their views, confirmation and messages."""
