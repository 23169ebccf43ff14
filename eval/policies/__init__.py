"""What is evaluated: local models and endpoints."""
