"""How close a run comes to what bounds it, and how it stands beside other tools."""
