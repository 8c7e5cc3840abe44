"""What every layer may know: requests, states, names, settings, errors."""
