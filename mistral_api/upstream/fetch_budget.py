"""What the images of one request may take, and the failure to have one; without what fetches (``image_fetcher``)."""

from __future__ import annotations

import time
from dataclasses import dataclass

# How long all images of one request may take.
FETCH_SECONDS = 10.0


class ImageNotFetched(Exception):
    """An image cannot be had. The message is the end of a sentence that begins with the field of the request."""


@dataclass(slots=True)
class FetchBudget:
    """What the images of one request may take: ``bytes`` of base64 in all, and until when (``time.monotonic()``)."""

    bytes: int
    deadline: float

    @classmethod
    def of_request(cls, most_bytes: int, seconds: float = FETCH_SECONDS) -> FetchBudget:
        """Return the budget of a request that fetches from now on."""
        return cls(most_bytes, time.monotonic() + seconds)

    @property
    def seconds(self) -> float:
        """How many seconds are left. Raises ImageNotFetched where none are."""
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise ImageNotFetched("did not arrive in time")
        return left

    @property
    def expired(self) -> bool:
        """Whether no time is left."""
        return time.monotonic() >= self.deadline
