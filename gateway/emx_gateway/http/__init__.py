"""What HTTP asks of any service: bodies, negotiation, problem documents."""
