"""One module per group of calls; routes parse, call one service method, and shape the reply."""
