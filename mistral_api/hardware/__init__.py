"""Graphics cards and processor time. Imports nothing of this package."""
