"""Real servers for the lab: each started, filled and looked into with its own programs."""
