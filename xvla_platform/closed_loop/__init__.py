"""A policy at work: episodes in a gymnasium environment, counted, filmed, and repeated with inputs taken away."""
