"""The HTML page of an evaluated head, and its figures."""
