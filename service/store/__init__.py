"""What is kept: rows in SQLite or PostgreSQL, images and heatmaps as files by their hash."""
