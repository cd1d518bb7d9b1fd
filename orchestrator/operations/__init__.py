"""From the right to send to what came of it."""
