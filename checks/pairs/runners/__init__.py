"""Tools that measure a pair, each behind checks.pairs.runner.Runner."""
