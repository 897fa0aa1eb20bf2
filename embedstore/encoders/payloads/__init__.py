"""From the bytes of a payload to what a model sees."""
