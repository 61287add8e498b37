"""Hypothesis strategies for bytes that were damaged."""

from hypothesis import strategies as st

_FILLINGS = st.sampled_from([b"", b"\0", b"\xff", b"7", b"-", b"\n", b"\x80"])


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """Bytes with up to four parts cut, repeated, or filled with something else."""
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
    """The usual value, and one in six times another: an input that is wrong everywhere is refused for its first fault.

    Args:
        usual: a value, or a strategy.
        other: a strategy for the rest.
    """
    usual = usual if isinstance(usual, st.SearchStrategy) else st.just(usual)
    return st.sampled_from([True] * 5 + [False]).flatmap(lambda as_usual: usual if as_usual else other)


def maybe_damaged(whole: bytes) -> st.SearchStrategy[bytes]:
    """The bytes, damaged in half of the examples."""
    return st.one_of(st.just(whole), damaged(whole))
