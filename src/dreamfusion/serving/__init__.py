"""One prior for many runs: what is asked together, and the server."""
