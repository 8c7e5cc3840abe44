"""The HTTP API: a thin, documented face over jobs, tracking, registry and serving."""
