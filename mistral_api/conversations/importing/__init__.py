"""Import of conversations: exports of this and of other programs are read into trees of messages, and stored."""
