"""What a program costs: counted before it runs, measured while it runs."""
