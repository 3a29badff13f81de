"""Work in batches: planned before the first pass, kept as shards, run here or by workers."""
