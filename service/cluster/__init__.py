"""Kizu on several computers, by Ray Serve: one front that does all but run models, and pools of
engines. Nothing else of the service knows Ray."""
