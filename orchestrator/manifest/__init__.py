"""From what to export to rows that wait."""
