"""Spans that the shards of an Examples artifact were copied from. Imports neither TFX nor TensorFlow."""

import hashlib

# Custom properties of the artifact. A window of several spans has the folder and the digest of its newest span.
SPAN_FOLDER, SPAN_DIGEST = "span_folder", "span_digest"
EARLIER_SPANS = "earlier_spans"  # digests of the other spans of a window by number, as JSON; missing for a single span

# Digests, by number as JSON, of refused spans from which a person dropped images that a window therefore leaves out.
DROPPING_SPANS = "dropping_spans"
WINDOW_SHARD = "part-span-"  # beginning of the names of the shards of a window, which the number of the span follows


def shard_span(shard: str, default: int) -> int:
    """Return the number of the span that a shard was copied from.

    Args:
        shard: name of the shard.
        default: number of the span if the shard does not belong to a window.
    """
    return int(shard.removeprefix(WINDOW_SHARD).partition("-")[0]) if shard.startswith(WINDOW_SHARD) else default


def data_digest(span_digest: str, earlier_spans: str) -> str:
    """Return the digest of the shards that examples were copied from: of one span, or of all spans of a window.

    Args:
        span_digest: the property SPAN_DIGEST.
        earlier_spans: the property EARLIER_SPANS; empty for a single span.
    """
    return hashlib.sha256(f"{span_digest} {earlier_spans}".encode()).hexdigest() if earlier_spans else span_digest
