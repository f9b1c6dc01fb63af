"""What plugin authors test with: the conformance kit, and mistakes to plant in a clean dataset."""
