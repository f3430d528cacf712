"""``bin/serve``: the whole stack in the foreground, started in order and stopped in reverse."""
