"""Numbers of things in messages."""


def quantity(number: object, noun: str) -> str:
    """Return a number with its noun, such as "1 alert" or "1,000 alerts".

    Args:
        number: the number. Other values, which a store may hold in its place, are written as they are.
        noun: a noun in the singular whose plural ends in "s".
    """
    text = f"{number:,}" if isinstance(number, int) else str(number)
    return f"{text} {noun}" if number == 1 else f"{text} {noun}s"
