"""Sessions and their message trees: appending what was said, reading it back."""
