"""Finding the setting that fits into the memory there is: what was short, what to try next, what worked."""
