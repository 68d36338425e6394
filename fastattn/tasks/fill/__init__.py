"""`Filler`: the words for [MASK]."""
