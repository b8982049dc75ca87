"""The engine: turns images into reports by constrained greedy decoding of a whole batch at a time."""
