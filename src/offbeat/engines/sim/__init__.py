"""The simulator: agents in a world of delays, losses and crashes, on a heap of events."""
