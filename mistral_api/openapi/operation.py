"""One operation: what a route takes and answers, beside what its URL and its view say themselves."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from marshmallow import Schema

from mistral_api.openapi.shapes import Shape

JSON, EVENTS = "application/json", "text/event-stream"


@dataclass(frozen=True, slots=True)
class Operation:
    """``request`` and ``query``: the schemas that the view loads with; where it has none ``body``, and of the query
    the arguments that are ``needed`` and the others.

    ``answer``: the component of the JSON that is answered with 200, ``event`` that of every event of a stream.
    ``statuses``: what else is answered, in the error shape ``error``; ``also``: with a component of its own.
    ``names``: the path parameter of other operations that the ``id`` of the answer is for, and these operations.
    """

    answer: str | None = None
    request: type[Schema] | None = None
    query: type[Schema] | None = None
    body: Shape | None = None
    needed: dict[str, Shape] = field(default_factory=dict)
    arguments: dict[str, Shape] = field(default_factory=dict)
    event: str | None = None
    body_required: bool = True
    of_session: bool = False
    guarded: bool = True
    statuses: frozenset[str] = frozenset()
    also: dict[str, str] = field(default_factory=dict)
    media: tuple[str, ...] = ()
    error: str = "Error"
    names: tuple[str, tuple[str, ...]] = ("", ())

    @property
    def has_body(self) -> bool:
        """Whether it takes a body."""
        return self.request is not None or self.body is not None

    def answers(self, *statuses: str) -> Operation:
        """The same with more statuses."""
        return replace(self, statuses=self.statuses | set(statuses))


# The model server: away, silent or failing; what it refuses keeps the status it gave.
_ASKING = ("400", "404", "4XX", "502", "503", "504")


def passthrough_operation(answer: str, **options: Any) -> Operation:
    """A question that the model server answers."""
    return Operation(answer, **options).answers(*_ASKING)


def generating(answer: str, event: str, **options: Any) -> Operation:
    """A generation: a whole body, or events."""
    return passthrough_operation(answer, event=event, of_session=True, **options)


def reading(answer: str, **options: Any) -> Operation:
    """Something that PostgreSQL answers."""
    return Operation(answer, **options).answers("503")


def administering(answer: str, **options: Any) -> Operation:
    """What only an administrator may ask of the model server."""
    operation = passthrough_operation(answer, **options).answers("403")
    return operation.answers("415") if operation.has_body else operation
