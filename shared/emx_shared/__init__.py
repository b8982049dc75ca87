"""The contracts that gateway and worker share. No torch, no FastAPI."""
