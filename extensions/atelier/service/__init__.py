"""The run service: it owns all state of runs, and it alone decides."""
