"""Who may call, from where and how often, and the log of what they did."""
