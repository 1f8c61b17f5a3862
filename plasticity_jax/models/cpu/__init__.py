"""What is faster on a CPU in another way: convolutions, and random numbers for dropout."""
