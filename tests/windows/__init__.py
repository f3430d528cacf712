"""The project on Windows' own Python, under Wine: ``bin/test-windows``. No test of pytest stands here.

``cache.py`` and ``parts.py`` fetch what a Windows machine has (Python, packages), ``wine.py`` runs programs in a Wine
prefix of its own, ``installation.py`` copies the project into it, and the other modules hold the checks.
"""
