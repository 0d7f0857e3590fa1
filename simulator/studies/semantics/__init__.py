"""What a decision means, against a known truth: logs of the serving code, read by the evaluation and by the learner."""
