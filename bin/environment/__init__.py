"""The project's own Python environment ``.venv``: how it is made, mended and brought up to date.

Standard library only: this runs before anything is installed. ``setup.py`` has the steps; ``record.py`` knows what has
been installed, ``lock.py`` lets one process at a time work on it, ``pip_runner.py`` runs pip, ``progress.py`` shows how
far it is, and ``relocation.py`` mends an environment whose folder was moved.
"""
