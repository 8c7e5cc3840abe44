"""Packaging policies as MLflow models; their names, versions, aliases and promotion."""
