"""Other people's models and where they come from: the text encoder, the hub, hashes of weights."""
