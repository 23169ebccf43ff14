"""`rise publish`: a folder that is ready for the Hub, and the proof that it works."""
