"""The verbs as library functions: each command of the command line calls one of them."""
