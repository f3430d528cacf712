"""What every room may use: files, processes, addresses, the service manager, logs, exit codes, identifiers."""
