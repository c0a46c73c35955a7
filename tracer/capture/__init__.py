"""Recording: load the probes, hold and release the target, drain the rings."""
