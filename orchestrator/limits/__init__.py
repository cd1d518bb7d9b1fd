"""What may be sent now: rate, concurrency, halts and unreachable endpoints."""
