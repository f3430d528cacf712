"""The way to the model server: connections, deadlines, streams, cancellation. Knows no database."""
