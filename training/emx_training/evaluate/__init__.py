"""Score predicted reports against the true ones."""
