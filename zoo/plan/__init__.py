"""The real step compiled for chips that are not here."""
