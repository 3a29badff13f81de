"""Measure activation steering of language models, honestly and fast."""

__version__ = "0.1.0"
