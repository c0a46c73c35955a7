"""Event records: one definition in `probes/include/record.h`, read here."""
