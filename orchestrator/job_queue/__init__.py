"""Add and claim jobs, and recover the jobs of processes that have ended."""
