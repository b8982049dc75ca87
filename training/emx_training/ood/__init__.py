"""Decline images that are out of distribution: fit the guard, and measure what it declines."""
