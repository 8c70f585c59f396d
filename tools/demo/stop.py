"""Ends the servers that the demo left running."""

import servers

names = servers.stop_earlier()
print(f"demo: ended {' and '.join(names)}" if names else "demo: nothing of it is running")
