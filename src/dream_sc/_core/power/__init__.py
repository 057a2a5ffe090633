"""What a design would find: draws of the sums of its guides, and the evidence of the trans step in closed form."""
