"""What is fetched from the hub and the package index."""
