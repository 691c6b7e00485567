"""What tests, fault harness, bench and demo need beside the product, which imports nothing of it."""
