"""What an operator does to jobs."""
