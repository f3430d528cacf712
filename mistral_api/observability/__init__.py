"""What is told of requests when they have ended: to the log, and to whoever else asks to be told."""
