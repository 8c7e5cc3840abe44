"""What every face calls: built once, asked by the API, the command line and MLproject alike."""
