"""Where a package stands on an agent: what follows from the agent's words and from the state of its task."""
