"""How much is done at a time: as much as is soon done, so that nobody else has to wait for it. Pure."""

__all__ = ["Stride"]

_SOON = 0.2  # seconds that one step should take
_MOST_GROWTH = 2.0  # times as much as the last step: that one may have been quick by chance


class Stride:
    """The size of the next step, learnt from how long the last one took."""

    def __init__(self, first: int, *, least: int, most: int) -> None:
        """Begin with a size; it stays between the two others."""
        self.size, self._least, self._most = first, least, most

    def took(self, seconds: float) -> None:
        """Learn how long a step of this size took."""
        growth = min(_SOON / seconds, _MOST_GROWTH) if seconds > 0 else _MOST_GROWTH
        self.size = max(self._least, min(int(self.size * growth), self._most))
