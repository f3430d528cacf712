"""Docstring: states and threads.

The owner of the model server, and of nothing else. Knows no Flask and no database.

Finding the setting that fits into the memory there is: what was short, what to try next, what worked.

Warm restarts: the caches of conversations are saved while the model server runs, and given to its successor.
"""
