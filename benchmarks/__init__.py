"""Load, fault and cost measurements; each aims at a system it started itself, on loopback."""
