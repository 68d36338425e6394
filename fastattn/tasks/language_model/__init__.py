"""`LanguageModel`: an AWD-LSTM, trained on raw text."""
