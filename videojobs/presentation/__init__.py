"""Words for people about jobs and the provider, without HTML."""
