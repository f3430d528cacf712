"""What our web server and the application tell each other, in the environment of a WSGI request.

Another WSGI server does not know these keys: it iterates the body of every response on the thread of its request, which
works as well, and costs that thread.
"""

from __future__ import annotations

# Set by the application, for a response whose body waits through ``event_loop.waiting`` alone: True.
# Our server iterates it as a task of its event loop. The body calls ``start_response`` when it is iterated (PEP 3333).
RUNS_AS_TASK = "mistral_api.runs_as_task"
# Set by the application: a function that our server calls in the loop every HEARTBEAT_SECONDS while the next piece of
# the body is waited for. It returns bytes to send, or None. Before the first of them it has called ``start_response``.
WHILE_WAITING = "mistral_api.while_waiting"
# Set by the application: a function that our server calls before it sends a piece of the body, with the piece and
# whether the client then has the whole body; where that is known at the end alone, with an empty piece. It may wait.
BEFORE_SENDING = "mistral_api.before_sending"
# Set by our server: a function that takes another one, which is called in the loop when the client has left.
ON_DISCONNECT = "mistral_api.on_disconnect"
