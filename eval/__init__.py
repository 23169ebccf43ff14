"""Decisions of a policy on unseen requests, scored with intervals. May import `synthesis`."""
