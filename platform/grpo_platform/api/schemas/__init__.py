"""What the API takes and gives, one module per group of calls."""
