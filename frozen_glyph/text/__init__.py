"""Text files in, documents and nats per character out."""
