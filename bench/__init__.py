"""Benchmarks: the cost of this server, always compared with the bare model server of the same run."""
