"""The commands of the command line: one file for each, with its options and what it does."""
