"""The file formats that checkpoints come in; nothing here knows a model."""
