"""The trace folder: raw segments while recording, then one Parquet file per table."""
