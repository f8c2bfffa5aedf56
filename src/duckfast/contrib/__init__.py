"""What duckfast knows of other programs. Each module here is optional, and the only one that imports the program it is for."""
