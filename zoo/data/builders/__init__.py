"""TFDS builders of the data that ship with the zoo."""
