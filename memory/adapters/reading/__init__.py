"""What runs in the guarded child: one module per family of files, each turning bytes into blocks in reading order."""
