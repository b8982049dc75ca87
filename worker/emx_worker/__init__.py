"""The worker: model loading, 4-bit weights, box decoding and the engine. Importing the package costs nothing."""
