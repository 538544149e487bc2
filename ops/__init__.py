"""The keys to the building: `rememberos` on the command line, and one machine that runs every part."""
