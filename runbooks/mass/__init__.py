"""The mass clean-up: what there is to take away, and what of it is chosen."""
