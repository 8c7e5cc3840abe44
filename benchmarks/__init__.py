"""One script a claim; each prints what it measured, side by side with a public peer."""
