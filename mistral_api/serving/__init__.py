"""``bin/serve``: the whole server in the foreground, its parts started in order and stopped in reverse."""
