"""The threads that write to PostgreSQL: exchanges from the journal (``writer``), retention, samples of GPUs."""
