"""All procedures looked at together: what is wrong, what is proposed, and what has changed since the last time."""
