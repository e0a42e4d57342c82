"""The domains of the library, one file each; a name leads to its file."""
