"""The command line `kizu-train`."""
