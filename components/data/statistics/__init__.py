"""Statistics of a span's images that TFDV does not compute."""
