"""The way of an event: the evidence of RB-SB-004, and what it says."""
