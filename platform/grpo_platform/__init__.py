"""GRPO training jobs, model registry and serving on MLflow."""

__version__ = "0.1.0"
