"""Submit and poll: our gateway beside LitServe, BentoML and Ray Serve, in turns, on one machine."""
