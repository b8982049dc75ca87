"""The ways to run the model: in this process, or on a server that speaks OpenAI's API."""
