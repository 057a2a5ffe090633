"""Small statistics that stand by themselves, each used by one step or check."""
