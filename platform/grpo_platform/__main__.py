"""`python -m grpo_platform`: the command line."""

from grpo_platform.cli import main

if __name__ == "__main__":
    main()
