"""What the user says: requests, the critical parameters in them, and how hard they are."""
