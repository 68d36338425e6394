"""Translation of text: `Translator`."""
