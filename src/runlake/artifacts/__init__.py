"""Files that belong to runs, beside the segments."""
