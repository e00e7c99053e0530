"""The worker pool's parts: when to send, how many at once, how long to wait, and the sending itself."""
