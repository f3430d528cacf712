"""Graphics cards and processor time. This room imports nothing of this package."""
