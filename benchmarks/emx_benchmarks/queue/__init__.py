"""Measures what grows with the number of jobs that wait: submitting, listing, reconciling, and what is urgent."""
