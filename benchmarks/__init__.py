"""What `make bench` measures. Every goal is a ratio of two things measured in turns in the same run."""
