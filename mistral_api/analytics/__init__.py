"""The figures behind /v1/stats."""
