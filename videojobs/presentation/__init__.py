"""Texts about jobs and the provider, for pages and terminals. No HTML."""
