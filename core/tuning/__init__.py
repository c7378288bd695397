"""Searches over the settings of a recipe: Optuna proposes values, a trial is a run, and a metric judges it."""
