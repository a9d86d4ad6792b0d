"""Hookline's own plugins. They use only the public names of `hookline`; any of them could be a distribution of its own.

`entry_points.txt` offers them by name, in the form every distribution uses.
"""
