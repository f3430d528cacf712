"""What requests leave behind: journaled on the local disk, moved to PostgreSQL. Knows no HTTP."""
