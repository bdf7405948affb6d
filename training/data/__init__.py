"""Images on disk: folders, public sets, the demo product, drawn defects."""
