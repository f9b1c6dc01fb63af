"""What a recording says about itself: numbers and images in, guesses with confidence and evidence out."""
