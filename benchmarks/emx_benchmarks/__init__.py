"""What ``emx bench`` measures: always ratios, of things that ran in turn in one process."""
