"""How a server is reached: as a process, or over HTTP."""
