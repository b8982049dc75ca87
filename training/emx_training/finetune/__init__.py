"""Fine-tune a base model in two phases: report text first, then where findings are."""
