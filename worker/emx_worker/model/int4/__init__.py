"""4-bit weights: quantised while a checkpoint is read, and cached on disk for the next start."""
