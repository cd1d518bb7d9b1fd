"""The cases: what is measured, and the goals that are compared with it."""
