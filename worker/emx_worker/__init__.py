"""The worker: model loading, 4-bit weights, location dialects and the engine. Importing it costs nothing."""
