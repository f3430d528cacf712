"""The record of every request, journaled on the local disk until PostgreSQL has it; without HTTP and SQLAlchemy."""
