"""The demonstration: a real training job, a real fault, and what muster makes of it, with the time of each."""
