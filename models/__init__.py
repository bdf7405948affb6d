"""What training writes and the service reads: bundles, backbones, samples, pixels."""
