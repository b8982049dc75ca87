"""The peers' programs. They run in the environment that has the peers, where nothing of ours can be imported."""
