"""Datasets: real ones from folders and tables, procedural phantoms, and exporters."""
