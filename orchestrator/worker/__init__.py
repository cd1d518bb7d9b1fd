"""One run: its loops, and each attempt from its claim to its recorded outcome."""
