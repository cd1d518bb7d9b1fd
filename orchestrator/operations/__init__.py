"""Operations: what an operator does to jobs (retry, cancel, resolve)."""
