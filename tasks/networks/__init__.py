"""Networks, each called with the data's dimensions; every split of a batch gives the same result."""
