"""Answers that the model server does not give in OpenAI's form: mended chunk by chunk, between it and the client.

Only requests that need it come through here; every other stream is relayed as the bytes it came in.
"""
