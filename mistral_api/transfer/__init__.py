"""Everything that a database holds, carried whole: to another PostgreSQL, into a backup file and back.

The rows go as PostgreSQL's own COPY text, whatever the versions of the two servers, and into one transaction. A
transfer that is interrupted at any instant leaves its target as it was. Before the commit, the number of rows and a
checksum of every table are compared (``transfer.checksums``).
"""
