"""Mistral Local API: the model server that remembers."""
