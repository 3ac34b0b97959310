"""Being emptied: see jdp/learning."""
