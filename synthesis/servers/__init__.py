"""From an `mcpServers` file to running servers: sandboxed, restarted, recorded."""
