"""A study: recordings, bases, adaptations and closed-loop evaluations as one resumable list of `xvla` commands."""
