"""The inspection service: images in, durable verdicts out."""
