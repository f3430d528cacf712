"""Docstring.

The Responses API: from its requests to chat completions and back, its state, and what runs in the background.

Objects kept to be retrieved by their ids, as they were answered: stored chat completions and responses.
"""
