"""Helpers of the tests: running processes, databases, misbehaving fakes, shared checks."""
