"""What `write-docs.py` is made of: generators of the parts of docs/*.md that are facts of the code."""
