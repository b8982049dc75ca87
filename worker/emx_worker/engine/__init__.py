"""The engine: studies in, reports out, by constrained greedy decoding of a whole batch at a time."""
