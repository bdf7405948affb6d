"""`kizu connect`: passes results on to what stands in a plant. A process of its own, which knows
the service by its API alone."""
