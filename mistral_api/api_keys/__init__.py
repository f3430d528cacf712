"""API keys in PostgreSQL: made and changed there, mirrored in DATA_DIR, watched for the ring in memory."""
