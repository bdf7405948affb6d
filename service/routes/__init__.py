"""HTTP in, HTTP out: parse, call, answer."""
