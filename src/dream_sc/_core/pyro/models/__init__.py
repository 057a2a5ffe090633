"""Pyro models: the one definition of each step's joint density. The trans step has two, cell and guide level."""
