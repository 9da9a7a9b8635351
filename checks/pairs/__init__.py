"""All-pairs bandwidth tests: plan disjoint pairs, measure them, and name the part that is slow."""
