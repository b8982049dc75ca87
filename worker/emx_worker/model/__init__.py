"""The model: its checkpoint, its weights in 4 bits or whole, its adapter, and how it writes boxes."""
