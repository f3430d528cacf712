"""The PostgreSQL tables, one aggregate a module."""
