"""
What is asked of another interpreter: each module here runs as a program of its own, under ``python -c``.

They import nothing of ours and keep to the syntax of Python 3.8, the oldest that runs a supported spandrel.
"""
