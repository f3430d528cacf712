"""PostgreSQL: engines, deadlines, errors, tables."""
