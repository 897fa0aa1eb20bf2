"""The numerics below the heads. Arrays in, arrays out."""
