"""The command ``embedstore``: thin bodies over the library, nothing heavy imported before it is needed."""
