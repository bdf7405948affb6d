"""What Kizu promises, held to it at length: `python -m tests.gates --full --json FILE`."""
