"""Docstring.

Sessions and their message trees: appending what was said, reading it back.

OpenAI's items: the view of stored chat messages that the Conversations and Responses APIs share. Pure functions.
"""
