"""The tables in PostgreSQL. A module holds the tables that are always used together."""
