"""Real MCP calls to virtual trajectories to datasets. Knows no torch."""
