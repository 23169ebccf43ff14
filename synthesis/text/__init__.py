"""What is equal, what is near, what is a word."""
