"""The server: a JSON API over one store, and the page that uses it."""
