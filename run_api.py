"""Starts the API and the MLflow UI: `python run_api.py`."""

from grpo_platform.server import main

if __name__ == "__main__":
    main()
