"""What runs: remembers and acts."""
