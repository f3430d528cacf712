"""What the files of our model servers are called: the main one's have plain names, another's begin with its own."""

from __future__ import annotations

MAIN, EMBEDDING = "model-server", "embedding-server"


def server_file_name(server: str, name: str) -> str:
    """The name of a server's own copy of what the main server calls ``name``."""
    return name if server == MAIN else f"{server}-{name}"
