"""Simulated robots on a table: environment, scripted expert and recorder (optional extra ``sim``)."""
