"""`Classifier`: a class, or several labels, for each text or pair of texts."""
