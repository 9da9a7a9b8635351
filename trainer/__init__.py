"""The reference FSDP trainer and the progress client that a user's job may import."""
