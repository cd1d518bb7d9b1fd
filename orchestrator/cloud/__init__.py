"""The vendor's services over HTTP. Nothing here knows about jobs."""
