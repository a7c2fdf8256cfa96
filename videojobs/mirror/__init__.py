"""A URL becomes a verified file in storage: download, verify, store. Knows no job."""
