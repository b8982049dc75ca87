"""The measurements of ``emx bench``: always ratios between candidates that take turns on one machine."""
