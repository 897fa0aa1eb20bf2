"""Where the work of `embed` is done."""
