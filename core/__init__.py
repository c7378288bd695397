"""The hall of the house: the words that every plugin and the command line speak."""
