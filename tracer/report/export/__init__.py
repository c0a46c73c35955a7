"""A trace in other tools' formats. Each module writes one; all read only correlated tables."""
