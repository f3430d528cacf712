"""Registration of the API and the supervisor with the system: systemd, or the Service Control Manager of Windows."""
