"""Replies become results, in the original order. Pure and synchronous."""
