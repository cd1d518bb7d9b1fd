"""Look up exports in their buckets, and decide the next state of accepted and unknown jobs."""
