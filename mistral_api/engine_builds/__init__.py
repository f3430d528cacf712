"""Builds of the bundled engine: which one suits this machine's card, fetched, tried, and kept beside the CPU's."""
