"""The file contract between the supervisor and the API: server descriptions, status, feedback, saved caches."""
