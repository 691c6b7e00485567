"""Version 1 of the contract. Generated modules only."""
