"""A page over ML Metadata: reads, and never writes. Rendered here; a browser needs no script to walk it."""
