"""Candidate calls, really executed and judged: verified primitives."""
