"""Batches to bytes, and bytes to vectors. Pure and synchronous."""
