"""Benchmarks: what this server costs, always against the bare model server in the same run."""
