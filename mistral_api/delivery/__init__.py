"""From the journal to PostgreSQL: the writer, partitions, retention, samples of the graphics cards."""
