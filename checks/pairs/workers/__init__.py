"""Programs that run on the measured nodes; only these may import torch."""
