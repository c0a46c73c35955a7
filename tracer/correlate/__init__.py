"""From event tables to awaits: pure functions over columns, no clock, no root."""
