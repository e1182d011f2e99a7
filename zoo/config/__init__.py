"""From a file and a command line to checked data, and from names in it to functions."""
