"""An emergency stop: what can be stopped, what is stopped, and how it was before."""
