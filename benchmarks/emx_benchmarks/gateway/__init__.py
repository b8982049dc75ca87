"""Measures submitting and polling: our gateway beside LitServe, BentoML and Ray Serve, on one machine."""
