"""Custom properties of an Examples artifact that say which spans were copied. Imports neither TFX nor TensorFlow."""

import hashlib

# A window of several spans has the folder and the digest of its newest span.
SPAN_FOLDER, SPAN_DIGEST = "span_folder", "span_digest"
EARLIER_SPANS = "earlier_spans"  # digests of the other spans of a window by number, as JSON; missing for a single span


def data_digest(span_digest: str, earlier_spans: str) -> str:
    """Return the digest of the shards that examples were copied from: of one span, or of all spans of a window.

    Args:
        span_digest: the property SPAN_DIGEST.
        earlier_spans: the property EARLIER_SPANS; empty for a single span.
    """
    return hashlib.sha256(f"{span_digest} {earlier_spans}".encode()).hexdigest() if earlier_spans else span_digest
