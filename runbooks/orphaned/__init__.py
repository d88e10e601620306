"""What no sandbox owns: the evidence of RB-SB-003 and of the mass clean-up, and what is proposed."""
