"""The state of every part, gathered for ``/health``."""
