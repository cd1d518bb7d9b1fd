"""What happened, and how things stand."""
