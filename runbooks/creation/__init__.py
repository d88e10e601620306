"""What a new schema needs: the evidence of RB-SB-005, and what it says."""
