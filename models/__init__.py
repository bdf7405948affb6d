"""What training writes and the service reads: bundles, backbones, samples, pixels."""

import os

# From 1.29 on ONNX Runtime's wheels for Linux tell Microsoft which models are run on which device,
# unless this is said before it is imported. What a plant inspects is nobody's business.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
