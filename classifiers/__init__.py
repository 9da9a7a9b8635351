"""What a log means: explains, never acts."""
