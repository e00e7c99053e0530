"""Documents to batches: how many tokens, where to cut, what to send together. Pure and synchronous."""
