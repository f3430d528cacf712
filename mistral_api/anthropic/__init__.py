"""Anthropic's Messages API, to and from chat completions: pure functions.

llama.cpp has a ``/v1/messages`` of its own. It is not used, for there (tools/server/server-chat.cpp and
server-task.cpp) ``return_progress`` and ``seed`` are dropped, so that a client that leaves during the prompt keeps its
slot; ``any`` and a named tool are not enforced; a stream whose first token is held back has no ``message_start``; and
blocks lack fields that Anthropic's types demand (``signature``, ``input``). Shapes are those of the ``anthropic``
package's types.
"""
