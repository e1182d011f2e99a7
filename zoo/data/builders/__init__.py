"""TFDS builders of the data that come with the zoo."""
