"""Do the EC50 or the amplitude change linearly over contexts in an order? Time points, doses of a second factor."""
