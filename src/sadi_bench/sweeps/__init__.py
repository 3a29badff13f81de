"""A sweep: many runs, wherever a launcher computes them, watched and summed up in one place.

Every run leaves its outcome as a file in the sweep's folder, so that nothing is asked of a launcher
but to start runs.
"""
