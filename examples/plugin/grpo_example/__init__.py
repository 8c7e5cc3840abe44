"""Example of a plug-in for grpo-platform: `example/Docking-v0`, `gentle_cart` and `effort`."""
