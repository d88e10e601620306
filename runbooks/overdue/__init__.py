"""Sandboxes that are over and have not gone: the evidence of RB-SB-001 and RB-SB-002, and what it says."""
