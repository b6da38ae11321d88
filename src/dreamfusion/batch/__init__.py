"""Many runs: which there are, the processes that make them, and the page that shows them."""
