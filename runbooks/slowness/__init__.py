"""What the status command waits for: the evidence of RB-SB-006, and what it says."""
