"""Writing a robot's declaration from its data: what names say, what numbers say, and blanks where neither is sure."""
