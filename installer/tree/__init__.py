"""Patching a spandrel: what is there, what that means, what to do about it, and doing it so that it can be undone."""
