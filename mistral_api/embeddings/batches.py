"""Many inputs in portions: what one request to the model server holds.

llama.cpp takes any number at once, but goes on with all of them for a client that has left as long as each result
comes within a second of the last (``HTTP_POLLING_SECONDS`` in tools/server/server-context.cpp): a portion is the most
that is computed for nobody. So a portion is about what the server does in half a second, which depends on the model
and the machine by orders of magnitude: each shows how large the next one may be.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

EmbeddingInput = str | list[int]

MOST_ITEMS = 256
# In bytes of text, with four for a token: from what a CPU reads in such a time to more than any card does.
FIRST_BYTES, MOST_BYTES = 256, 256 << 10
PORTION_SECONDS = 0.5
GROWTH = 4.0


class Batches:
    """Cuts items into portions, in order: iterate, and say after each one how long it took."""

    def __init__(self, items: Sequence[EmbeddingInput], beside: int = 0) -> None:
        """``beside``: the bytes that are computed with each item, as a query is."""
        self._items = items
        self._beside = beside
        self._bytes = float(FIRST_BYTES)

    def __iter__(self) -> Iterator[tuple[int, list[EmbeddingInput]]]:
        """The portions, each with the index of its first item; none is empty."""
        first = 0
        while first < len(self._items):
            last = self._end(first)
            yield first, list(self._items[first:last])
            first = last

    def took(self, seconds: float) -> None:
        """Note how long the last portion took."""
        factor = min(GROWTH, PORTION_SECONDS / max(seconds, 1e-3))
        self._bytes = min(MOST_BYTES, max(1.0, self._bytes * factor))

    def _end(self, first: int) -> int:
        """One item at least, whatever its size."""
        last, size = first + 1, self._size(first)
        while last < min(len(self._items), first + MOST_ITEMS) and size + self._size(last) <= self._bytes:
            size += self._size(last)
            last += 1
        return last

    def _size(self, index: int) -> int:
        return text_size(self._items[index]) + self._beside


def text_size(item: EmbeddingInput) -> int:
    """About how much there is to compute."""
    return len(item.encode("utf-8", "replace")) if isinstance(item, str) else 4 * len(item)
