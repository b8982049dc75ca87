"""Train and evaluate report models: phantoms, collections, two fine-tuning phases, the demo model."""
