"""Search for images whose label is probably wrong."""
