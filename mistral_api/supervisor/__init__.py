"""The owner of the model server, and of nothing else. Knows no Flask and no database."""
