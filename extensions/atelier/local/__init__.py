"""This computer and this account: hardware, installed images, overlays, processes, what a child process inherits."""
