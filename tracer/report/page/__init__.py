"""The HTML page: one file that needs no network, from a trace's correlated tables."""
