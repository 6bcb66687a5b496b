"""The commands of the command line, a module with a function `run` for each, and what they share."""
