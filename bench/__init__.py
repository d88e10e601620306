"""Side-by-side measurements: ours and its peers in one run, as ratios. Not part of the tests."""
