"""Where credentials come from, and how they are kept valid during a run."""
