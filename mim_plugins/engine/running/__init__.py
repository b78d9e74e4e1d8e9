"""While a run trains: its loops, loading processes and signals."""
