"""What the policy earned more than the holdout, from a log of ours: the live metric's figures, with rows by segment."""
