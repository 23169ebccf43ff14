"""Other people's datasets: one file each."""
