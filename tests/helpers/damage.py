"""Hypothesis strategies for damaged bytes."""

from hypothesis import strategies as st

_FILLINGS = st.sampled_from([b"", b"\0", b"\xff", b"7", b"-", b"\n", b"\x80"])


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """Draw the bytes `whole` with up to four changes: parts are cut, repeated or overwritten."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        size = draw(st.sampled_from([0, 1, 1, 2, 4, 8, 40, 512]))
        match draw(st.sampled_from(["flip", "fill", "write", "repeat", "cut"])):
            case "flip" if at < len(data):
                data[at] ^= 1 << draw(st.integers(0, 7))
            case "fill":
                data[at : at + size] = draw(_FILLINGS) * size
            case "write":
                data[at : at + size] = draw(st.binary(max_size=12))
            case "repeat":
                data[at:at] = data[at : at + size]
            case "cut":
                del data[at:]
    return bytes(data)


def mostly(usual: object, other: st.SearchStrategy) -> st.SearchStrategy:
    """Draw the usual value five times out of six, and else another one.

    If all values of an input were wrong, it would always be rejected for the first one.

    Args:
        usual: a value, or a strategy.
        other: a strategy for other values.
    """
    usual = usual if isinstance(usual, st.SearchStrategy) else st.just(usual)
    return st.sampled_from([True] * 5 + [False]).flatmap(lambda as_usual: usual if as_usual else other)


def maybe_damaged(whole: bytes) -> st.SearchStrategy[bytes]:
    """Draw the bytes, damaged in half of the examples."""
    return st.one_of(st.just(whole), damaged(whole))
