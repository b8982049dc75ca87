"""The gateway: HTTP, renderings, the workstation, and the courier. No torch."""
