"""Side-by-side measurements: ours and a peer in one run, as ratios."""
