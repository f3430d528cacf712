"""OpenAI's items: the view of stored chat messages that the Conversations and Responses APIs share. Pure functions."""
