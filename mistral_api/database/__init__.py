"""PostgreSQL: engines, deadlines, errors, health and tables."""
