"""Spans that the shards of an Examples artifact were copied from. Imports neither TFX nor TensorFlow."""

import hashlib

# Custom properties of the artifact. A window of several spans has the folder and the digest of its newest span.
SPAN_FOLDER, SPAN_DIGEST = "span_folder", "span_digest"
EARLIER_SPANS = "earlier_spans"  # digests of the other spans of a window by number, as JSON; missing for a single span

# Digests, by number as JSON, of refused spans from which a person dropped images that a window therefore leaves out.
DROPPING_SPANS = "dropping_spans"
DATA_PROPERTIES = SPAN_DIGEST, EARLIER_SPANS, DROPPING_SPANS  # the arguments of `data_digest`
WINDOW_SHARD = "part-span-"  # beginning of the names of the shards of a window, which the number of the span follows


def shard_span(shard: str, default: int) -> int:
    """Return the number of the span that a shard was copied from.

    Args:
        shard: name of the shard.
        default: number of the span if the shard does not belong to a window.
    """
    return int(shard.removeprefix(WINDOW_SHARD).partition("-")[0]) if shard.startswith(WINDOW_SHARD) else default


def data_digest(span_digest: str, earlier_spans: str, dropping_spans: str) -> str:
    """Return the digest of the data that examples were copied from: of one span, or of all spans of a window.

    Args:
        span_digest: the property SPAN_DIGEST.
        earlier_spans: the property EARLIER_SPANS; empty for a single span.
        dropping_spans: the property DROPPING_SPANS; empty if it is missing.
    """
    digests = [digest for digest in (span_digest, earlier_spans, dropping_spans) if digest]
    return hashlib.sha256(" ".join(digests).encode()).hexdigest() if len(digests) > 1 else span_digest
