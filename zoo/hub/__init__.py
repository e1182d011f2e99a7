"""Published weights: found, read without torch, and written back."""
