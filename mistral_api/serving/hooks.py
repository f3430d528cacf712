"""What the web server asks about requests and connections before the application sees them, and whom it tells.

``refuse_early`` and ``is_unbounded`` run in the loop of the server: they must neither wait nor read a disk. The others
run on threads of lanes, and may write to one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mistral_api.errors import ApiError
from mistral_api.security.request_head import RequestHead
from mistral_api.system.addresses import is_loopback

# Refuses a request by its head, before its body is read; None lets it pass.
RefuseEarly = Callable[[RequestHead], ApiError | None]


def _tell_nobody(error: ApiError, head: RequestHead, request_id: str) -> None:
    """Do nothing."""


def _tell_nobody_of_closed(address: str, count: int) -> None:
    """Do nothing."""


@dataclass(frozen=True, slots=True)
class Hooks:
    """``refuse_early`` refuses a request by its head. ``is_unbounded`` tells the addresses that may have any number of
    connections. ``on_refusal`` gets the error of a request that the application does not see, its head, and the id
    that its client was shown. ``on_closed`` gets an address, and how many of its connections were closed to make room.
    """

    refuse_early: RefuseEarly | None = None
    is_unbounded: Callable[[str], bool] = is_loopback
    on_refusal: Callable[[ApiError, RequestHead, str], None] = _tell_nobody
    on_closed: Callable[[str, int], None] = _tell_nobody_of_closed
