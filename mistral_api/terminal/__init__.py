"""A conversation in the terminal, ``mistral-api chat``: a client of the running server that knows a terminal.

What is said goes through the API like that of any other client, so it is checked, limited and recorded alike.
"""
