"""What can be asked of a machine: reads, never acts."""
