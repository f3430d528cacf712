"""The statistics of ``/v1/stats``: sums of usage and of the graphics cards' samples, written and read."""
