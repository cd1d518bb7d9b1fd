"""One run: its loops, and the life of one attempt."""
