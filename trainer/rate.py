"""The learning rate of a step: a function of its number, so that resuming needs no state of it."""

import math

from trainer.config import Config


def rate(step: int, config: Config) -> float:
    """Learning rate of step `step` (from 1): linear warm-up, then level or a cosine to a tenth at --decay-steps."""
    if step <= config.warmup_steps:
        return config.rate * step / config.warmup_steps
    if not config.decay_steps:
        return config.rate
    done = min(1.0, (step - config.warmup_steps) / (config.decay_steps - config.warmup_steps))
    return config.rate * (0.1 + 0.45 * (1 + math.cos(math.pi * done)))
