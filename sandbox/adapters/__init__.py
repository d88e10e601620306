"""The drivers live here and nowhere else; their errors are translated at this boundary."""
