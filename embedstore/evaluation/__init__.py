"""Scores of heads and rankings, with intervals. Arrays in, numbers out."""
