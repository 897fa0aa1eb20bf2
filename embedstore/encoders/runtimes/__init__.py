"""What runs a network: torch, torch.compile, OpenVINO; and which one is chosen."""
