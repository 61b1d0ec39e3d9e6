"""Independent models for the simulation: wire, clock, links, a server's TCP, conversations.

Nothing here imports the program under test, so that the two check each other.
"""
