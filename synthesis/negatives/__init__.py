"""Turns that would run, yet are not what the user asked for."""
