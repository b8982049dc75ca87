"""The peers' programs. They run in the peers' environment, where none of our packages can be imported."""
