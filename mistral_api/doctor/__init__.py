"""``mistral-api doctor``: checks of everything a server needs, on the settings of its user, which change nothing."""
