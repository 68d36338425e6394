"""`Translator`: text in another language."""
