"""The provider's API: its client, and the validation of requests."""
