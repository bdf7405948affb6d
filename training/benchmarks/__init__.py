"""Methods measured side by side."""
