"""ImageStatistics: figures of the images of a span, which TFDV does not have."""
