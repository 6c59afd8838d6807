"""What others read of a release: README, Croissant, charts, and the folder that a hub wants."""
