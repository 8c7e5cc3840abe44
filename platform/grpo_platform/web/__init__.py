"""The control room: pages under `/app`, which see, judge and steer over the HTTP API."""
