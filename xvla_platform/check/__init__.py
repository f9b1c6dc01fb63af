"""A declaration tested against its data: named findings with what was measured, why it matters, how to fix it."""
