"""The ways to help rare classes, by name; nothing else, because help names them."""

BALANCES = ("weights", "oversample", "undersample", "smote", "logit-adjust", "threshold", "focal")
