"""The machine below us: files, processes, addresses, logs, identifiers."""
