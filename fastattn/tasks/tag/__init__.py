"""`Tagger`: a label for each word."""
