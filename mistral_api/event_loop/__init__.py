"""One thread that waits for many sockets at once, and tasks: code that waits there without a thread of its own."""
