"""The file formats of checkpoints. This package imports no model."""
