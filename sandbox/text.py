"""Text that others wrote, made fit for a terminal. Pure."""

__all__ = ["clean"]


def clean(value: object) -> str:
    """Return text that cannot move the cursor, break a line, hide or turn what follows: such characters are spelt out."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in str(value)
    )
