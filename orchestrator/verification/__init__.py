"""From what came of an attempt to the next state, for good."""
