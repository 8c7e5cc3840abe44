"""Entry points of the MLproject: what `mlflow run` calls, with a run that it has created."""
