"""How fast, how many, and what not at all: asked before anything is sent."""
