"""What another bundle says of images that were inspected before: by Ray Data, on as many devices as
there are. It changes nothing of what was decided."""
