"""Warm restarts: the caches of conversations are saved while the model server runs, and given to its successor."""
