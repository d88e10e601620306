"""Read-only probes: facts about the patients, and what may be said of them."""
