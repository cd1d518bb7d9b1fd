"""History, status and the summary of a run."""
