"""Registering the server with the system's service manager: systemd, or the Service Control Manager of Windows.

A room of its own, since both processes are registered: it belongs neither to the supervisor, which knows no API,
nor to ``serving``. (``services.py`` is something else: what the application keeps between requests.)
"""
