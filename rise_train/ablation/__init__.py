"""`rise ablate`: every arm trained, scored and compared."""
