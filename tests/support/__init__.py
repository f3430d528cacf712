"""Helpers of the tests: running processes, databases, fakes that misbehave, checks that many tests share."""
