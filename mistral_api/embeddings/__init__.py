"""Vectors of texts, and texts in the order of what they have to do with a query."""
