"""Objects kept to be retrieved by their ids, as they were answered: stored chat completions and responses."""
