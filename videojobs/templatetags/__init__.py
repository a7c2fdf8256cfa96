"""Tags for a site's own pages."""
