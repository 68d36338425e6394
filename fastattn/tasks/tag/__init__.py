"""A label for each word: `Tagger`."""
