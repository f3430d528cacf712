"""Grammars and JSON schemas that could stop the model server: tried out in a process of their own, and quarantined."""
