"""How the API processes of one ``bin/serve`` speak with each other (API_PROCESSES)."""
