"""The files between the supervisor and the API: which servers there are, their status, feedback, saved caches."""
