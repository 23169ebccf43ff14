"""Where servers run: a throw-away folder, a process that can write nowhere else, and what it finds in its HOME."""
