"""Pre-train the demo model's base on phantoms, from random weights."""
