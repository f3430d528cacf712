"""waitress's connections, with our error bodies for what it refuses before the application sees it."""

from __future__ import annotations

from http import HTTPStatus

from waitress.channel import HTTPChannel
from waitress.task import ErrorTask

from mistral_api.errors import ApiError, error_response, internal_error, refused_request
from mistral_api.identifiers import new_id


class _OurErrorTask(ErrorTask):  # type: ignore[misc] # waitress has no type hints
    """Answers a body or headers too large, or a request that is no HTTP, in the one shape."""

    def execute(self) -> None:
        """Write the answer and close the connection: where its next request would begin is unknown."""
        failure = _failure(self.request.error.code, self.request.error.body)
        response = error_response(failure)
        body = response.get_data()
        self.status = f"{failure.status} {HTTPStatus(failure.status).phrase}"
        self.response_headers += [*response.headers, ("X-Request-Id", str(new_id()))]
        self.content_length = len(body)
        self.set_close_on_finish()
        self.write(body)


def _failure(status: int, reason: str) -> ApiError:
    """waitress's 501, an unknown transfer encoding, is the client's fault: it must not be tried again."""
    if status == HTTPStatus.INTERNAL_SERVER_ERROR:
        return internal_error()
    return refused_request(status if status < 500 else 400, reason)


class Channel(HTTPChannel):  # type: ignore[misc] # waitress has no type hints
    """One connection."""

    error_task_class = _OurErrorTask
